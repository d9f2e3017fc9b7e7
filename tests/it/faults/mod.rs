//! Faults under the standard load: F0 to F26 of the catalogue in `docs/faults.md`, each a trial that
//! ends with `tasker verify`, the ledger of what ran, and the formula of each result.

mod bus;
mod clients;
mod clocks;
mod commits;
mod crash_points;
mod database;
mod disks;
mod handlers;
mod ledger;
mod load;
mod messages;
mod overload;
mod panics;
mod partitions;
mod processes;
mod results;
mod soak;
mod starved;
mod trial;
mod versions;
