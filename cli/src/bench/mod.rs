//! `tasker bench`: the workloads against a running cluster, and the bare pipeline beside them.
//!
//! Every run is checked against the closed formula of its workload: a wrong result is no result.

mod chain;
mod fan_out;
mod floor;
mod latency;
mod link;
mod many_small;
mod products;
mod report;
mod resident;
mod skew;
mod spent;
mod timed;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use self::link::Link;
use self::report::Report;
use self::resident::Resident;
use self::spent::Meter;
use crate::dev::DevState;
use crate::exit::Exit;
use crate::output::{self, Format, OutputArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Fan-out and fan-in: one task with many workers, from submit to the aggregate
    W1(W1Args),
    /// Many small tasks: analyzer, 8 workers and aggregator each, submitted as fast as possible
    W2(W2Args),
    /// Latency: tasks of three steps, one after the other
    W3(W3Args),
    /// Skew: a batch of 2,000 alone, and beside a large one in the same namespace
    W4(W4Args),
    /// A small batch on real data: 1,000 rows of a file in five ranges, one task after the other
    Products(ProductsArgs),
    /// The bare pipeline: same servers, same row widths, no engine
    Floor(FloorArgs),
    /// The bare chain: what the tasks of W3 ask of the same servers, no engine
    Chain(ChainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// How often to measure
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Do not measure the bare pipeline, or the bare chain, beside it
    #[arg(long)]
    no_floor: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct W1Args {
    /// Workers of the batch
    #[arg(long, short = 'n', default_value_t = 100_000)]
    batches: u32,
    /// How long each of them sleeps, so that not the processors are the limit but the slots
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=60_000))]
    sleep_ms: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct W2Args {
    /// Tasks
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tasks: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct W3Args {
    /// Tasks
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tasks: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct W4Args {
    /// Workers of the large batch
    #[arg(long, short = 'n', default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(10_000..=10_000_000))]
    batches: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct ProductsArgs {
    /// Tasks
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tasks: u32,
    /// The file of 1,000 rows, where the workers may read it
    #[arg(long, default_value = "examples/data/products.csv")]
    file: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Steps
    #[arg(long, short = 'n', default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    batches: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct ChainArgs {
    /// Chains of three steps
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tasks: u32,
    #[command(flatten)]
    common: Common,
}

/// Steps of the bare pipeline when it is measured beside a workload.
const FLOOR_STEPS: u32 = 100_000;

pub(crate) async fn run(command: BenchCommand, data_dir: &Path) -> anyhow::Result<()> {
    let state = DevState::read(data_dir).map_err(|error| {
        Exit::usage(format!("{error}: a benchmark runs beside `tasker dev` of the same --data-dir"))
    })?;
    let link = Link::connect(&state).await?;
    let resident = Resident::watch(&state.pids);
    let mut meter = Meter::new(&state, &link.store);
    let Measured { mut report, steps, floor_steps } = measure(&command, &link, &mut meter).await?;
    report.peak_rss_mib = resident.peaks();
    report.per_step = steps.map(|steps| meter.per_step(steps));
    report.database_mib =
        Some(link.store.server_counters().await?.database_bytes as f64 / 1_048_576.0);
    let common = command.common();
    if floor_steps > 0 && !common.no_floor {
        let mut meter = Meter::new(&state, &link.store);
        let runs = floor::measure(&link, &mut meter, floor_steps, common.runs.min(3)).await?;
        report.compare(&Report::of_runs("floor", floor_steps, u64::from(floor_steps), &runs));
    }
    if let BenchCommand::W3(args) = &command
        && !common.no_floor
    {
        let mut meter = Meter::new(&state, &link.store);
        let times = chain::measure(&link, &mut meter, args.tasks, common.runs.min(3)).await?;
        report.compare_latency(&Report::of_times("chain", args.tasks, &times));
    }
    let text = match common.output.format {
        Format::Json => serde_json::to_string_pretty(&report)?,
        Format::Table => report.table(),
        Format::Ids => report.workload.to_owned(),
    };
    Ok(output::print(&text)?)
}

/// What a workload came to.
struct Measured {
    report: Report,
    /// What the costs are divided by; `None` if they are not of equal steps.
    steps: Option<u64>,
    /// Steps of the bare pipeline to set beside it; 0 is none.
    floor_steps: u32,
}

async fn measure(
    command: &BenchCommand,
    link: &Link,
    meter: &mut Meter,
) -> anyhow::Result<Measured> {
    let runs = command.common().runs;
    let (report, steps, floor_steps) = match command {
        BenchCommand::W1(W1Args { batches: n, sleep_ms, .. }) => {
            let times = fan_out::measure(link, meter, (*n, *sleep_ms), runs).await?;
            let report = Report::of_tasks("w1", *n, u64::from(*n), &times);
            (report, Some(u64::from(*n)), (*n).clamp(1, FLOOR_STEPS))
        }
        BenchCommand::W2(W2Args { tasks, .. }) => {
            let times = many_small::measure(link, meter, *tasks, runs).await?;
            let steps = u64::from(*tasks) * many_small::STEPS;
            (Report::of_tasks("w2", *tasks, steps, &times), Some(steps), FLOOR_STEPS)
        }
        BenchCommand::W3(W3Args { tasks, .. }) => {
            let times = latency::measure(link, meter, *tasks, runs).await?;
            let steps = u64::from(*tasks) * latency::STEPS;
            (Report::of_latencies("w3", *tasks, &times), Some(steps), 0)
        }
        BenchCommand::W4(W4Args { batches, .. }) => {
            let times = skew::measure(link, *batches, runs).await?;
            (Report::of_skew("w4", skew::SMALL, times), None, 0)
        }
        BenchCommand::Products(ProductsArgs { tasks, file, .. }) => {
            let times = products::measure(link, meter, file, *tasks, runs).await?;
            let steps = u64::from(*tasks) * products::STEPS;
            (Report::of_latencies("products", *tasks, &times), Some(steps), 0)
        }
        BenchCommand::Chain(ChainArgs { tasks, .. }) => {
            let times = chain::measure(link, meter, *tasks, runs).await?;
            let steps = u64::from(*tasks) * latency::STEPS;
            (Report::of_times("chain", *tasks, &times), Some(steps), 0)
        }
        BenchCommand::Floor(FloorArgs { batches: n, .. }) => {
            let times = floor::measure(link, meter, *n, runs).await?;
            (Report::of_runs("floor", *n, u64::from(*n), &times), Some(u64::from(*n)), 0)
        }
    };
    Ok(Measured { report, steps: steps.map(|steps| steps * u64::from(runs)), floor_steps })
}

impl BenchCommand {
    fn common(&self) -> &Common {
        match self {
            Self::W1(args) => &args.common,
            Self::W2(args) => &args.common,
            Self::W3(args) => &args.common,
            Self::W4(args) => &args.common,
            Self::Products(args) => &args.common,
            Self::Floor(args) => &args.common,
            Self::Chain(args) => &args.common,
        }
    }
}

/// The middle one of some times; of an even number the mean of the two in the middle.
fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let n = sorted.len();
    match n {
        0 => Duration::ZERO,
        _ if n % 2 == 1 => sorted[n / 2],
        _ => (sorted[n / 2 - 1] + sorted[n / 2]) / 2,
    }
}
