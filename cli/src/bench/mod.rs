//! `tasker bench`: the workloads against a running cluster, and the bare pipeline beside them.
//!
//! Every run is checked against the closed formula of its workload: a wrong result is no result.

mod fan_out;
mod floor;
mod latency;
mod link;
mod many_small;
mod report;
mod resident;
mod skew;

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};

use self::link::Link;
use self::report::Report;
use self::resident::Resident;
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
    /// The bare pipeline: same servers, same row widths, no engine
    Floor(FloorArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// How often to measure
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Do not measure the bare pipeline beside it
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
pub(crate) struct FloorArgs {
    /// Steps
    #[arg(long, short = 'n', default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    batches: u32,
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
    let (mut report, common, floor_steps) = match &command {
        BenchCommand::W1(args) => {
            let runs = fan_out::measure(&link, args.batches, args.common.runs).await?;
            let report = Report::of_runs("w1", args.batches, u64::from(args.batches), runs);
            (report, &args.common, args.batches.clamp(1, FLOOR_STEPS))
        }
        BenchCommand::W2(args) => {
            let runs = many_small::measure(&link, args.tasks, args.common.runs).await?;
            let steps = u64::from(args.tasks) * many_small::STEPS;
            (Report::of_runs("w2", args.tasks, steps, runs), &args.common, FLOOR_STEPS)
        }
        BenchCommand::W3(args) => {
            let times = latency::measure(&link, args.tasks, args.common.runs).await?;
            (Report::of_latencies("w3", args.tasks, times), &args.common, 0)
        }
        BenchCommand::W4(args) => {
            let times = skew::measure(&link, args.batches, args.common.runs).await?;
            (Report::of_skew("w4", skew::SMALL, times), &args.common, 0)
        }
        BenchCommand::Floor(args) => {
            let runs = floor::measure(&link, args.batches, args.common.runs).await?;
            let steps = u64::from(args.batches);
            (Report::of_runs("floor", args.batches, steps, runs), &args.common, 0)
        }
    };
    report.peak_rss_mib = resident.peaks();
    if floor_steps > 0 && !common.no_floor {
        let runs = floor::measure(&link, floor_steps, common.runs.min(3)).await?;
        report.compare(&Report::of_runs("floor", floor_steps, u64::from(floor_steps), runs));
    }
    let text = match common.output.format {
        Format::Json => serde_json::to_string_pretty(&report)?,
        Format::Table => report.table(),
        Format::Ids => report.workload.to_owned(),
    };
    Ok(output::print(&text)?)
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
