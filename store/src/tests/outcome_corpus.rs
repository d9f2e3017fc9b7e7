//! The outcomes of `workflow/corpus/outcomes`, right and wrong ones in one set: each that is wrong
//! becomes a named, permanent error of its step, and harms neither its task nor its neighbours.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::PgPool;
use tasker_messages::{StepKind, Verdict};
use tasker_workflow::{batching, choose};

use super::{World, ns};
use crate::{FinishedAttempt, NewTask};

const MOST_MEMBERS: u32 = 5;

#[derive(Deserialize)]
struct Case {
    step: String,
    expect: String,
    appended: Option<u32>,
    result: Box<RawValue>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../workflow/corpus/outcomes")
}

fn cases() -> Vec<Case> {
    let files = fs::read_dir(folder()).expect("the corpus");
    let paths = files.map(|file| file.expect("a file").path());
    let texts = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
    texts
        .map(|path| serde_json::from_str(&fs::read_to_string(path).expect("read")).expect("a case"))
        .collect()
}

/// What an orchestrator does with a report before it is stored.
async fn judged(world: &World, case: &Case, report: FinishedAttempt) -> FinishedAttempt {
    let found = world.store.find_judged(&ns(), &[(report.step_id, report.attempt)]).await;
    let judged = found.expect("read").remove(&report.step_id).expect("judged");
    let (template, name) = (judged.template, judged.name);
    let (_, step) = template.step(&name).expect("there");
    let verdict = match step.kind {
        StepKind::Decision => choose(&template, step, case.result.get()).map(drop),
        _ => batching::plan(&template, step, case.result.get(), case.appended, MOST_MEMBERS)
            .map(drop),
    };
    let ending = verdict.map(|()| case.result.get().into());
    FinishedAttempt { ending, ..report }
}

#[sqlx::test]
async fn each_broken_outcome_is_the_error_of_its_step(pool: PgPool) {
    let source = fs::read_to_string(folder().join("template.yaml")).expect("the template");
    let world = World::of(pool, &source).await;
    let cases = cases();
    let tasks: Vec<NewTask> = cases.iter().map(|_| world.new_task(None, 1)).collect();
    world.store.insert_tasks(&tasks).await.expect("stored");
    let before = |task: &NewTask| world.finished(world.id(task, "before"), StepKind::Standard, 1);
    world.apply(&tasks.iter().map(before).collect::<Vec<_>>()).await;

    let mut set = Vec::new();
    for (case, task) in cases.iter().zip(&tasks) {
        let report = world.attempt(task, &case.step).await;
        set.push(judged(&world, case, report).await);
    }
    let applied = world.apply(&set).await;
    assert!(applied.verdicts.iter().all(|verdict| *verdict == Verdict::Applied));
    assert_eq!(applied.next_retry_ms, None, "the same would come again");

    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    world.store.converge_tasks(&ids).await.expect("converged");
    for (case, task) in cases.iter().zip(&tasks) {
        let view = world.store.view_task(task.id, None).await.expect("read").expect("there");
        let step = view.steps.into_iter().find(|step| step.name == case.step).expect("there");
        let error = step.results.and_then(|results| results.error);
        let code = error.map_or_else(|| "ok".to_owned(), |error| error.code);
        assert_eq!(Some(code.as_str()), case.expect.split(' ').next(), "{}", case.result);
        if code != "ok" {
            let (split, route) = match case.step.as_str() {
                "split" => ("error", "enqueued"),
                _ => ("enqueued", "error"),
            };
            // Nothing was created, nothing else has changed.
            let end = format!(
                "in_progress 4/9/1 | before=complete elsewhere=enqueued other=enqueued \
                 route={route} split={split} work_x=enqueued"
            );
            assert_eq!(world.shown(task.id).await, end, "{}", case.result);
        }
    }
}
