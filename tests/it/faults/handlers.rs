//! Handlers that do the worst they can, beside a load that must not notice.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tasker_tests::template;

use super::trial::{Rounds, Trial};

/// A template of the tests, what it is given, and how its task ends.
const POISON: [(&str, &str, &str); 6] = [
    ("panic", "{}", "error"),
    ("abort", r#"{"abort": true}"#, "error"),
    ("nul_result", "{}", "error"),
    ("large_result", "{}", "error"),
    ("timeout", "{}", "error"),
    ("always_fail", "{}", "error"),
];

/// A step that takes its worker down with it is given up after its attempts, each of which waits for
/// `ack_wait`.
const GIVEN_UP: Duration = Duration::from_secs(120);

#[tokio::test]
async fn f18_handlers_are_poison() -> anyhow::Result<()> {
    let rounds = Rounds { few: 1, all: 20, at_a_time: 5 };
    let Some((mut trial, rounds)) = Trial::start("F18 poison", rounds).await? else {
        return Ok(());
    };
    let api = trial.cluster.api()?;
    for (name, ..) in POISON {
        api.register(&template(name)?).await?;
    }
    for _ in 0..rounds {
        let mut ids = Vec::new();
        for (name, context, end) in POISON {
            let context: Value = serde_json::from_str(context)?;
            ids.push((api.submit("faulty", name, context).await?, name, end));
        }
        for (id, name, end) in ids {
            let task = api.wait(&id, GIVEN_UP).await?;
            ensure!(task.state() == end, "{name}: {}", task.view);
            trial.hit(1);
        }
    }
    trial.finish().await?;
    Ok(())
}
