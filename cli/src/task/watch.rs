//! Live progress on standard error: bars on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tasker_messages::{BatchId, TaskId, TaskSummary, TaskView};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::progress::{Line, Progress};
use super::wait;
use crate::client::{Client, Document};
use crate::output;

const LOOK: Duration = Duration::from_millis(500);
/// Between lines when they are kept, as in a log.
const BETWEEN_LINES: Duration = Duration::from_millis(1_900);

/// As [`wait::until_ended`], and shows what happens meanwhile.
pub(super) async fn until_ended(
    client: &Client,
    id: TaskId,
    deadline: Option<Instant>,
) -> anyhow::Result<Document<TaskView>> {
    let mut display = Display::for_stderr();
    let mut progress = Progress::default();
    let end = wait::until_ended(client, id, deadline);
    tokio::pin!(end);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            // An end that is known goes before one more look.
            biased;
            end = &mut end => break end,
            _ = looks.tick() => {}
        }
        // The end is awaited during the look too: a cluster that is away must not outlast the
        // deadline.
        tokio::select! {
            biased;
            end = &mut end => break end,
            summary = client.summary(id) => {
                let summary = summary?;
                let now = Instant::now();
                display.show(&summary, &progress.observe(&summary, now), now);
            }
        }
    };
    if end.is_ok()
        && let Ok(summary) = client.summary(id).await
    {
        display.finish(&summary, &progress.observe(&summary, Instant::now()));
    }
    end
}

enum Display {
    Bars(Bars),
    Lines { started: Instant, shown: Option<Instant> },
}

impl Display {
    fn for_stderr() -> Self {
        if std::io::stderr().is_terminal() {
            Display::Bars(Bars::new())
        } else {
            Display::Lines { started: Instant::now(), shown: None }
        }
    }

    fn show(&mut self, summary: &TaskSummary, lines: &[Line], now: Instant) {
        match self {
            Display::Bars(bars) => bars.show(summary, lines),
            Display::Lines { started, shown } => {
                if shown.is_none_or(|at| now.duration_since(at) >= BETWEEN_LINES) {
                    *shown = Some(now);
                    print_lines(summary, lines, now.duration_since(*started));
                }
            }
        }
    }

    /// Shows the last numbers, whenever the last ones were shown.
    fn finish(&mut self, summary: &TaskSummary, lines: &[Line]) {
        match self {
            Display::Bars(bars) => bars.finish(summary, lines),
            Display::Lines { started, .. } => print_lines(summary, lines, started.elapsed()),
        }
    }
}

fn print_lines(summary: &TaskSummary, lines: &[Line], elapsed: Duration) {
    let head = format!("{:6.1} s  {}", elapsed.as_secs_f64(), summary.state);
    if lines.is_empty() {
        output::progress(&head);
    }
    for line in lines {
        let Line { name, done, expected, .. } = line;
        output::progress(&format_args!("{head}  {name}  {done}/{expected}  {}", line.details()));
    }
}

/// A line with the task's state, and a bar per batch under it.
struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    bars: HashMap<BatchId, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let head = all.add(ProgressBar::new_spinner());
        head.set_style(style("{spinner} {msg}  {elapsed}"));
        head.enable_steady_tick(Duration::from_millis(120));
        Self { all, head, bars: HashMap::new() }
    }

    fn show(&mut self, summary: &TaskSummary, lines: &[Line]) {
        self.head.set_message(format!(
            "{}/{}@{}  {}",
            summary.namespace, summary.name, summary.version, summary.state
        ));
        for line in lines {
            let bar = self.bars.entry(line.batch).or_insert_with(|| {
                let bar = self.all.add(ProgressBar::new(u64::from(line.expected)));
                bar.set_style(style("  {prefix:<24!} {wide_bar} {human_pos}/{human_len}  {msg}"));
                bar.set_prefix(line.name.clone());
                bar
            });
            bar.set_length(u64::from(line.expected));
            bar.set_position(u64::from(line.done));
            bar.set_message(line.details());
        }
    }

    fn finish(&mut self, summary: &TaskSummary, lines: &[Line]) {
        self.show(summary, lines);
        self.bars.values().for_each(ProgressBar::abandon);
        self.head.abandon();
    }
}

/// The templates are constants of this file; if indicatif refused one, its default would do.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
