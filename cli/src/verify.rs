//! `tasker verify`: the invariants of a cluster, held against its rows.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Args;
use tasker_messages::{Invariant, TaskId, Verification};
use tasker_store::{Store, VerifyRequest};

use crate::cluster::ClusterArgs;
use crate::exit::{Code, Exit};
use crate::output::{self, Format, OutputArgs};
use crate::servers;
use crate::settings::SettingsArgs;
use crate::table::printable;

#[derive(Debug, Args)]
#[command(
    after_help = "It reads the database itself, in one snapshot, while the cluster works or \
when it is gone. Exit code 6 if an invariant does not hold."
)]
pub(crate) struct VerifyArgs {
    /// The database; also DATABASE_URL; without either that of the `tasker dev` in the data folder
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Everything that was submitted has ended: nothing may be open any more
    #[arg(long)]
    at_rest: bool,
    /// A file of task ids, one a line, that were accepted and so must be there; `-` is standard input
    #[arg(long, value_name = "FILE")]
    accepted: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: VerifyArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let accepted = args.accepted.as_deref().map(read_ids).transpose()?.unwrap_or_default();
    let settings = servers::with_database(&args.settings, args.database_url, cluster)?;
    let mut store = Store::connect(&settings.database).await?;
    if !settings.node.environment.is_empty() {
        // Budgets may differ there.
        store = store.in_environment(&settings.node.environment);
    }
    let found = store.verify(&VerifyRequest { at_rest: args.at_rest, accepted }).await?;
    store.close().await;
    let text = match args.output.format {
        Format::Json => serde_json::to_string_pretty(&found)?,
        Format::Ids => offenders(&found),
        Format::Table => shown(&found),
    };
    output::print(&text)?;
    if found.ok {
        return Ok(());
    }
    let broken: Vec<&str> =
        found.invariants.iter().filter(|i| !i.ok).map(|i| i.id.as_str()).collect();
    Err(Exit::new(Code::NotVerified, format!("{} broken", broken.join(", "))).into())
}

fn read_ids(path: &Path) -> Result<Vec<TaskId>, Exit> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    let shown = path.display();
    let text = text.map_err(|error| Exit::usage(format!("cannot read {shown}: {error}")))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| {
            line.trim().parse().map_err(|error| {
                Exit::usage(format!("{shown}, line {}: not a task id: {error}", n + 1))
            })
        })
        .collect()
}

fn offenders(found: &Verification) -> String {
    let all = found.invariants.iter().flat_map(|invariant| &invariant.offenders);
    all.map(|offender| format!("{}\n", offender.id)).collect()
}

fn shown(found: &Verification) -> String {
    let Verification { tasks, steps, outcomes, .. } = found;
    let lines: String = found.invariants.iter().map(lines_of).collect();
    format!("{lines}{tasks} tasks, {steps} steps, {outcomes} outcomes in one snapshot\n")
}

fn lines_of(invariant: &Invariant) -> String {
    let Invariant { id, rule, ok, violations, offenders } = invariant;
    if *ok {
        return format!("ok    {id:3}  {rule}\n");
    }
    let mut text = format!("FAIL  {id:3}  {rule}: {violations} times not\n");
    for offender in offenders {
        text += &format!("           {}  {}\n", offender.id, printable(&offender.what));
    }
    let more = violations.saturating_sub(offenders.len() as u64);
    if more > 0 {
        text += &format!("           and {more} more\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use tasker_messages::Offender;
    use uuid::Uuid;

    use super::*;

    fn invariant(id: &str, violations: u64, what: &[&str]) -> Invariant {
        let offender = |what: &&str| Offender { id: Uuid::nil(), what: (*what).to_owned() };
        Invariant {
            id: id.to_owned(),
            rule: "it holds".to_owned(),
            ok: violations == 0,
            violations,
            offenders: what.iter().map(offender).collect(),
        }
    }

    #[test]
    fn verdicts_as_people_read_them() {
        let found = Verification {
            ok: false,
            tasks: 1,
            steps: 2,
            outcomes: 3,
            invariants: vec![invariant("I1", 0, &[]), invariant("I11", 3, &["a\u{1b}b"])],
        };
        let id = Uuid::nil();
        assert_eq!(
            shown(&found),
            format!(
                "ok    I1   it holds\nFAIL  I11  it holds: 3 times not\n           {id}  a\\u{{1b}}b\n\
                 \u{20}          and 2 more\n1 tasks, 2 steps, 3 outcomes in one snapshot\n"
            )
        );
        assert_eq!(offenders(&found), format!("{id}\n"));
    }

    #[test]
    fn a_line_that_is_no_id_is_named() {
        let folder = std::env::temp_dir().join(format!("tasker-ids-{}", Uuid::now_v7()));
        fs::write(&folder, "0190a0a0-0000-7000-8000-000000000002\n\n nonsense\n").expect("written");
        let error = read_ids(&folder).expect_err("refused").to_string();
        fs::remove_file(&folder).expect("removed");
        assert!(error.contains("line 3: not a task id"), "{error}");
        assert!(read_ids(&folder).expect_err("gone").to_string().contains("cannot read"));
    }
}
