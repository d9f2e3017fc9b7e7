//! `tasker doctor`: rows, bus and workers of a cluster, held against each other.

mod judge;
mod look;

use std::time::Duration;

use clap::Args;
use tasker_messages::{Condition, Diagnosis, Finding, Recovery};

use crate::cluster::ClusterArgs;
use crate::exit::{Code, Exit};
use crate::output::{self, Format, OutputArgs};
use crate::servers;
use crate::settings::SettingsArgs;
use crate::table::printable;

#[derive(Debug, Args)]
#[command(
    after_help = "It asks database and bus themselves, so that it also works when no orchestrator does. \
It changes nothing. Exit code 6 if something is wrong."
)]
pub(crate) struct DoctorArgs {
    /// The database; also DATABASE_URL; without either that of the `tasker dev` in the data folder
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// The bus; also NATS_URL; without either that of the `tasker dev` in the data folder
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    /// How far back to show what the cluster has mended by itself
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    since: u32,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: DoctorArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let settings = servers::with_both(&args.settings, args.database_url, args.nats_url, cluster)?;
    let seen = look::look(&settings, args.since).await;
    let found = judge::judge(&seen);
    let text = match args.output.format {
        Format::Json => serde_json::to_string_pretty(&found)?,
        Format::Ids => not_right(&found).map(|finding| format!("{}\n", finding.id)).collect(),
        Format::Table => shown(&found),
    };
    output::print(&text)?;
    if found.ok {
        return Ok(());
    }
    let wrong = found.findings.iter().filter(|f| f.condition == Condition::Wrong);
    let wrong: Vec<&str> = wrong.map(|finding| finding.id.as_str()).collect();
    Err(Exit::new(Code::NotVerified, format!("wrong: {}", wrong.join(", "))).into())
}

fn not_right(found: &Diagnosis) -> impl Iterator<Item = &Finding> {
    found.findings.iter().filter(|finding| finding.condition != Condition::Ok)
}

fn shown(found: &Diagnosis) -> String {
    let mut text: String = found.findings.iter().map(lines_of).collect();
    if found.recoveries.is_empty() {
        text += "nothing had to be mended lately\n";
        return text;
    }
    text += "mended by itself, the last first:\n";
    text.extend(found.recoveries.iter().map(line_of));
    text
}

fn lines_of(finding: &Finding) -> String {
    let word = match finding.condition {
        Condition::Ok => "ok",
        Condition::Attention => "look",
        Condition::Wrong => "WRONG",
    };
    let mut text = format!("{word:5}  {:11}  {}\n", finding.id, printable(&finding.what));
    for place in &finding.places {
        text += &format!("                      {}\n", printable(place));
    }
    if !finding.advice.is_empty() {
        text += &format!("                    > {}\n", finding.advice);
    }
    text
}

fn line_of(recovery: &Recovery) -> String {
    let Recovery { at, kind, namespace, queue, steps } = recovery;
    let place = match (namespace, queue) {
        (Some(namespace), Some(queue)) => format!("{namespace}/{queue}"),
        _ => "the whole bus".to_owned(),
    };
    format!("  {at}  {:18}  {place}, {steps} steps sent again\n", kind.as_str())
}

/// As people say it.
fn ago(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use tasker_messages::RecoveryKind;

    use super::*;

    #[test]
    fn findings_as_people_read_them() {
        let finding = |condition, places: &[&str], advice: &str| Finding {
            id: "queues".to_owned(),
            condition,
            what: "as\u{1b} seen".to_owned(),
            advice: advice.to_owned(),
            places: places.iter().map(|&place| place.to_owned()).collect(),
        };
        let recovery = Recovery {
            at: "2026-01-01T00:00:00Z".to_owned(),
            kind: RecoveryKind::StalledConsumer,
            namespace: "n".parse().ok(),
            queue: "q".parse().ok(),
            steps: 0,
        };
        let found = Diagnosis {
            ok: false,
            findings: vec![
                finding(Condition::Ok, &[], ""),
                finding(Condition::Wrong, &["n/q: 3"], "do this"),
            ],
            recoveries: vec![recovery],
        };
        let text = "ok     queues       as\\u{1b} seen\nWRONG  queues       as\\u{1b} seen\n\
            \u{20}                     n/q: 3\n\u{20}                   > do this\n\
            mended by itself, the last first:\n\
            \u{20} 2026-01-01T00:00:00Z  stalled_consumer    n/q, 0 steps sent again\n";
        assert_eq!(shown(&found), text);
        assert_eq!(not_right(&found).count(), 1);
        let times = [5, 119, 121, 7_300].map(|s| ago(Duration::from_secs(s)));
        assert_eq!(times, ["5 s", "119 s", "2 min", "2 h"]);
    }
}
