//! The cluster that the integration tests run against: real processes, started as users start them.
//!
//! [`Cluster::shared`] is for tests that leave it as they found it, [`Cluster::start`] for those
//! that kill something. Everything waits for signals of the product or looks again and again until
//! a deadline; nothing sleeps and hopes.

mod api;
mod clock;
mod cluster;
mod compare;
mod counted;
mod database;
mod dev;
mod hurt;
mod installed;
mod process;
mod proxies;
mod proxy;
mod ration;
mod repository;
mod scratch;
mod secured;
mod servers;
mod stutter;
mod task;
mod tool;
mod until;
mod volumes;
mod wire;

pub use api::{Answer, Api};
pub use clock::Clock;
pub use cluster::Cluster;
pub use compare::{assert_same, difference};
pub use counted::{Costs, Counted};
pub use database::Database;
pub use dev::{Dev, DevState, Pids};
pub use installed::Installed;
pub use process::Process;
pub use proxies::{Proxies, Rules};
pub use proxy::{Judge, Protocol, Proxy, Rule, Verdict, Way, Weather, no_rule};
pub use ration::Ration;
pub use repository::{data_file, example, expected, repository, template};
pub use scratch::Scratch;
pub use secured::Secured;
pub use stutter::Stutter;
pub use task::Task;
pub use tool::{Ended, Tool};
pub use until::{until, until_some};
pub use volumes::{Volume, Volumes};
pub use wire::{Reply, Wire};
