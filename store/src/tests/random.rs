//! Random tasks against a real Postgres, in random order, against the reference model: every run comes
//! to an end, the right steps exist and end as they must, and the counters are right.
//!
//! `TASKER_RANDOM_TASKS` says how many, `TASKER_RANDOM_SEED` with which one to begin.

mod parallel;
pub(super) mod script;

use std::collections::HashMap;

use sqlx::PgPool;
use tasker_messages::{BatchId, StepId, StepKind, TaskId, TaskState, WorkerId};
use tasker_workflow::Template;
use tasker_workflow::model::{BatchScript, Final, Script, end, finals};
use uuid::Uuid;

use self::script::{Random, decided, script, valid_source};
use super::{LEASE_MS, World, failure, ns};
use crate::{FinishedAttempt, NewBatch, NewMember, RepairRequest, RepairTarget, VerifyRequest};

/// Tasks of one run of the tests; ten thousand take some minutes.
const TASKS: u64 = 300;

/// A step that could run now.
#[derive(Debug, sqlx::FromRow)]
struct Ready {
    id: Uuid,
    name: String,
    kind: String,
    attempt: i32,
    batch_id: Option<Uuid>,
    worker_template: Option<String>,
}

struct Run<'a> {
    world: &'a World,
    random: &'a mut Random,
    template: &'a Template,
    script: Script,
    task: TaskId,
    /// Whether transactions have met.
    in_parallel: bool,
    /// Steps that repairs have taken back.
    taken_back: u32,
}

impl Run<'_> {
    /// Does something that is possible, until nothing is.
    async fn play_out(&mut self) {
        for _ in 0..2_000 {
            let mut moved = false;
            for action in 0..4 {
                if action > 0 && self.random.one_in(2) {
                    // Sometimes much else happens before.
                    continue;
                }
                moved |= match action {
                    0 => Box::pin(self.report(3)).await,
                    1 => self.expand().await,
                    2 => self.converge().await,
                    _ => self.sweep().await,
                };
            }
            if !moved {
                // Nobody was lucky: everything that is possible, in turn.
                let reported = Box::pin(self.report(1)).await;
                let (expanded, converged) = (self.expand().await, self.converge().await);
                if !(reported | expanded | converged | self.sweep().await) {
                    return;
                }
            }
        }
        panic!("it does not come to an end");
    }

    async fn ready(&self) -> Vec<Ready> {
        sqlx::query_as(
            "select s.id, s.name, s.kind::text as kind, s.attempt, s.batch_id, b.worker_template
             from tasker.steps s
             join tasker.tasks t on t.id = s.task_id and t.finished_at is null
             left join tasker.batches b on b.id = s.batch_id
             where s.task_id = $1 and s.state = 'enqueued'
               and (b.id is null or b.state = 'sealed')
               and not exists (select from tasker.outcomes o where o.step_id = s.id)
             order by s.id",
        )
        .bind(self.task.as_uuid())
        .fetch_all(&self.world.pool)
        .await
        .expect("read")
    }

    /// Reports some of what could run, in one set; all of it if there is one chance.
    async fn report(&mut self, chances: usize) -> bool {
        let mut set = Vec::new();
        for step in self.ready().await {
            if chances > 1 && self.random.one_in(chances) {
                continue;
            }
            set.push(self.finished(&step));
        }
        if set.is_empty() {
            return false;
        }
        if self.random.one_in(2) {
            self.in_parallel = true;
            Box::pin(self.report_in_parallel(&set)).await;
        } else {
            self.world.store.apply_outcomes(&ns(), &set, LEASE_MS).await.expect("applied");
        }
        if self.random.one_in(4) {
            self.world.store.apply_outcomes(&ns(), &set, LEASE_MS).await.expect("once more");
        }
        true
    }

    fn finished(&mut self, step: &Ready) -> FinishedAttempt {
        let id = StepId::from_uuid(step.id);
        let fails = match (step.batch_id, &step.worker_template) {
            (Some(_), Some(worker)) => {
                self.script.batches.get(worker).is_some_and(|b| id.ordinal() < b.failing)
            }
            _ => self.script.failing.contains(&step.name),
        };
        let kind: StepKind = step.kind.parse().expect("a kind");
        let result = match (kind, self.script.choices.get(&step.name)) {
            (StepKind::Decision, Some(names)) => decided(names),
            _ => "{}".to_owned(),
        };
        // A first attempt may fail in passing; the second is the last.
        let in_passing = step.attempt == 1 && self.random.one_in(5);
        FinishedAttempt {
            has_schema: false,
            has_events: false,
            step_id: id,
            attempt: step.attempt as u32,
            dispatch_seq: 1,
            kind,
            worker: WorkerId::from_uuid(Uuid::nil()),
            execution_ms: 0,
            ending: match (fails, in_passing) {
                (_, true) => Err(failure(true)),
                (true, false) => Err(failure(false)),
                (false, false) => Ok(result.into()),
            },
            takes_next: self.random.one_in(2),
        }
    }

    async fn expand(&mut self) -> bool {
        let steps: Vec<Uuid> = sqlx::query_scalar(
            "select s.id from tasker.steps s join tasker.outcomes o on o.step_id = s.id
             where s.task_id = $1 and s.kind = 'batchable' and s.unsettled and o.state = 'complete'",
        )
        .bind(self.task.as_uuid())
        .fetch_all(&self.world.pool)
        .await
        .expect("read");
        let steps: Vec<StepId> = steps.into_iter().map(StepId::from_uuid).collect();
        let mut any = false;
        for step in self.world.store.load_expandable(&steps).await.expect("read") {
            let worker = self.template.worker_of(&step.name).expect("a worker").name.to_string();
            let BatchScript { members, budget, .. } = self.script.batches[&worker];
            let batch = NewBatch {
                id: BatchId::from_uuid(Uuid::now_v7()),
                task_id: self.task,
                namespace: ns(),
                batchable_step: step.step_id,
                worker_template: worker.clone(),
                queue: "default".into(),
                priority: 0,
                is_no_op: false,
                expected: members,
                max_failed: budget,
                isolates: self.random.one_in(2),
                parallelism: None,
                members: (0..members)
                    .map(|n| NewMember {
                        name: format!("{worker}_{n:03}"),
                        cursor_json: format!(
                            r#"{{"batch_id":"{n:03}","start_cursor":{n},"end_cursor":{},"batch_size":1}}"#,
                            n + 1
                        ),
                    })
                    .collect(),
            };
            self.world.store.seal_new_batches(&[batch]).await.expect("sealed");
            any = true;
        }
        any
    }

    async fn converge(&mut self) -> bool {
        let tasks = self.world.store.find_convergeable(10).await.expect("read");
        self.world.store.converge_tasks(&tasks).await.expect("converged");
        !tasks.is_empty()
    }

    async fn sweep(&mut self) -> bool {
        let cancelled = self.world.store.cancel_members(2).await.expect("cancelled");
        sqlx::query("update tasker.steps set run_after = now() where run_after is not null")
            .execute(&self.world.pool)
            .await
            .expect("due");
        cancelled | !self.world.store.wake_retries(10).await.expect("woken").is_empty()
    }

    /// Compares everything with the model.
    async fn check(&self, what: &str) {
        let finals = finals(self.template, &self.script);
        let (state, waits, failed) = end(self.template, &finals);
        let (got, active, pending, bad): (String, i32, i32, i32) = sqlx::query_as(
            "select state::text, active_steps, pending_steps, failed_steps
             from tasker.tasks where id = $1",
        )
        .bind(self.task.as_uuid())
        .fetch_one(&self.world.pool)
        .await
        .expect("a task");
        let counters = (got, active, pending, bad);
        let expect = (state.to_string(), 0, waits as i32, failed as i32);
        assert_eq!(counters, expect, "{what}: {finals:?}");

        let view = self.world.store.view_task(self.task, None).await.expect("read").expect("there");
        let states: HashMap<&str, &str> =
            view.steps.iter().map(|s| (s.name.as_str(), s.state.as_str())).collect();
        for (step, is) in self.template.steps.iter().zip(&finals) {
            let got = states.get(step.name.as_str()).copied();
            let right = match (step.kind, is) {
                (StepKind::BatchWorker, _) | (_, Final::Stopped) => true,
                (_, Final::Succeeded) => got == Some("complete"),
                (_, Final::Failed) => got == Some("error"),
                (_, Final::Waits) => matches!(got, None | Some("pending")),
                (_, Final::Lost | Final::Never) => got.is_none(),
            };
            assert!(right, "{what}: {} is {got:?} and should be {is:?}", step.name);
        }
        self.world.assert_counters(self.task).await;
    }

    /// No join began before everything that it joins had ended.
    async fn check_order(&self) {
        if self.in_parallel {
            // A step is ready as of the beginning of its transaction, which may have waited.
            return;
        }
        let early = "select count(*) from tasker.steps j
                     join tasker.batches b on b.task_id = j.task_id
                     join tasker.steps m on m.batch_id = b.id
                     join tasker.outcomes o on o.step_id = m.id
                     where j.kind = 'deferred_convergence' and o.created_at > j.enqueued_at
                       and j.task_id = $2 and j.name || ' ' || b.worker_template = any($1)";
        let early: i64 = sqlx::query_scalar(early)
            .bind(self.joins())
            .bind(self.task.as_uuid())
            .fetch_one(&self.world.pool)
            .await
            .expect("read");
        assert_eq!(early, 0, "joins that began too early");
    }

    /// Joins with each of the steps that they declare.
    fn joins(&self) -> Vec<String> {
        self.template
            .steps
            .iter()
            .filter(|step| step.kind == StepKind::DeferredConvergence)
            .flat_map(|join| join.dependencies.iter().map(move |d| format!("{} {d}", join.name)))
            .collect()
    }

    /// Retries the task; what could be retried works now. With `cascade` that is all that failed, but
    /// for what was taken back, which fails again.
    async fn repair(&mut self, cascade: bool) -> bool {
        let request = RepairRequest {
            task: self.task,
            target: RepairTarget::Task,
            cascade,
            principal: "test".into(),
            reason: "test".into(),
        };
        let Ok(done) = self.world.store.repair(&request).await.expect("decided") else {
            return false;
        };
        self.taken_back += done.taken_back;
        for id in &done.steps {
            let name: String = sqlx::query_scalar("select name from tasker.steps where id = $1")
                .bind(id.as_uuid())
                .fetch_one(&self.world.pool)
                .await
                .expect("a step");
            self.script.failing.remove(&name);
        }
        for (id, _) in &done.batches {
            let worker: String =
                sqlx::query_scalar("select worker_template from tasker.batches where id = $1")
                    .bind(id.as_uuid())
                    .fetch_one(&self.world.pool)
                    .await
                    .expect("a batch");
            if let Some(batch) = self.script.batches.get_mut(&worker) {
                batch.failing = 0;
            }
        }
        true
    }
}

/// Answers with how many steps were taken back.
async fn play(pool: &PgPool, seed: u64) -> u32 {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (text, template) = valid_source(&mut random, seed);
    let script = script(&mut random, &template);
    let world = World::of(pool.clone(), &text).await;
    let task = world.submit().await.id;
    let (world, random, template) = (&world, &mut random, &template);
    let mut run = Run { world, random, template, script, task, in_parallel: false, taken_back: 0 };
    Box::pin(run.play_out()).await;
    run.check("ran").await;
    run.check_order().await;
    // Each repair brings something more to its end; with cascades, everything.
    for cascade in [false, true] {
        let skips = !cascade && run.random.one_in(2);
        for _ in 0..if skips { 0 } else { template.steps.len() } {
            if !run.repair(cascade).await {
                break;
            }
            Box::pin(run.play_out()).await;
            run.check(if cascade { "taken back" } else { "repaired" }).await;
            run.check_order().await;
        }
    }
    let (state, ..) = end(template, &finals(template, &run.script));
    assert_eq!(state, TaskState::Complete, "nothing fails any more");
    run.taken_back
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[expect(clippy::print_stdout, reason = "a run of ten thousand says how far it is")]
#[sqlx::test]
async fn random_tasks_end_as_the_model_says(pool: PgPool) {
    let (tasks, first) = (number("TASKER_RANDOM_TASKS", TASKS), number("TASKER_RANDOM_SEED", 1));
    let begun = std::time::Instant::now();
    let mut taken_back = 0;
    for seed in first..first + tasks {
        let pool = pool.clone();
        let played = tokio::spawn(async move { Box::pin(play(&pool, seed)).await }).await;
        match played {
            Ok(steps) => taken_back += steps,
            Err(_) => panic!("TASKER_RANDOM_SEED={seed} fails; its panic is above"),
        }
        let done = seed + 1 - first;
        if done.is_multiple_of(500) {
            println!("{done} random tasks in {:.0} s", begun.elapsed().as_secs_f64());
        }
    }
    let request = VerifyRequest { at_rest: true, ..VerifyRequest::default() };
    let found = crate::Store::from_pool(pool).verify(&request).await.expect("read");
    assert!(found.ok && found.tasks == tasks, "{found:#?}");
    assert!(tasks < TASKS || taken_back > 0, "no repair has taken anything back");
}
