//! Random tasks against a real Postgres, in random order, against the reference model: every run comes
//! to an end, the right steps exist and end as they must, and the counters are right.
//!
//! `TASKER_RANDOM_TASKS` says how many, `TASKER_RANDOM_SEED` with which one to begin.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use sqlx::PgPool;
use tasker_messages::{BatchId, StepId, StepKind, TaskId, TaskState, WorkerId};
use tasker_workflow::Template;
use tasker_workflow::model::{BatchScript, Final, Script, end, finals};
use uuid::Uuid;

use super::{LEASE_MS, World, failure, ns};
use crate::{FinishedAttempt, NewBatch, NewMember, RepairRequest, RepairTarget};

/// Tasks of one run of the tests; ten thousand take some minutes.
const TASKS: u64 = 300;

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled",
/// ACM TOMS 42 (2016).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A template that may or may not be valid.
fn source(random: &mut Random, seed: u64) -> String {
    let mut text = format!("name: numbers\nnamespace_name: tests\nversion: 0.0.{seed}\nsteps:\n");
    // Name, whether a worker, whether it may be a parent of ordinary steps.
    let mut names: Vec<(String, bool)> = Vec::new();
    for n in 0..2 + random.below(8) {
        let kind = ["standard", "standard", "batchable", "decision", "deferred_convergence"]
            [random.below(5)];
        let join = kind == "deferred_convergence";
        let mut parents: Vec<&str> = Vec::new();
        for (name, is_worker) in &names {
            if (join || !is_worker) && random.one_in(if *is_worker { 2 } else { 3 }) {
                parents.push(name);
            }
        }
        let name = format!("s{n}");
        let _infallible = writeln!(
            text,
            "  - {{name: {name}, type: {kind}, dependencies: [{}], handler: {{callable: t}}, \
             retry: {{max_attempts: 2, backoff: none, backoff_base_ms: 0, jitter: false}}}}",
            parents.join(", ")
        );
        if kind == "batchable" {
            let _infallible = writeln!(
                text,
                "  - {{name: w{n}, type: batch_worker, dependencies: [{name}], \
                 handler: {{callable: t}}, \
                 retry: {{max_attempts: 2, backoff: none, backoff_base_ms: 0, jitter: false}}}}"
            );
            names.push((format!("w{n}"), true));
        }
        names.push((name, false));
    }
    text
}

fn valid_source(random: &mut Random, seed: u64) -> (String, Template) {
    loop {
        let text = source(random, seed);
        if let Ok(template) = Template::parse(text.as_bytes()) {
            return (text, template);
        }
    }
}

fn script(random: &mut Random, template: &Template) -> Script {
    let mut script = Script::default();
    for step in &template.steps {
        let name = step.name.to_string();
        match step.kind {
            StepKind::BatchWorker => {
                let members = 1 + random.below(5) as u32;
                let failing = match random.below(4) {
                    0 => random.below(members as usize + 1) as u32,
                    _ => 0,
                };
                let budget = match random.one_in(2) {
                    true => random.below(members as usize + 1) as u32,
                    false => members,
                };
                script.batches.insert(name, BatchScript { members, failing, budget });
                continue;
            }
            StepKind::Decision => {
                script.choices.insert(name.clone(), choice(random, template, &name));
            }
            _ => {}
        }
        if random.one_in(6) {
            script.failing.insert(name);
        }
    }
    script
}

/// A random choice that the rules accept.
fn choice(random: &mut Random, template: &Template, decision: &str) -> HashSet<String> {
    let Some((_, step)) = template.step(decision) else { return HashSet::new() };
    for _ in 0..10 {
        let names: HashSet<String> = template
            .steps
            .iter()
            .filter(|s| s.dependencies.iter().any(|d| d.as_str() == decision))
            .filter(|s| {
                matches!(s.kind, StepKind::Standard | StepKind::Batchable | StepKind::Decision)
            })
            .filter(|_| random.one_in(2))
            .map(|s| s.name.to_string())
            .collect();
        if tasker_workflow::choose(template, step, &decided(&names)).is_ok() {
            return names;
        }
    }
    HashSet::new()
}

fn decided(names: &HashSet<String>) -> String {
    let outcome = match names.is_empty() {
        true => serde_json::json!({"type": "no_branches"}),
        false => serde_json::json!({"type": "create_steps", "step_names": names}),
    };
    serde_json::json!({"decision_point_outcome": outcome}).to_string()
}

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
                    0 => self.report(3).await,
                    1 => self.expand().await,
                    2 => self.converge().await,
                    _ => self.sweep().await,
                };
            }
            if !moved {
                // Nobody was lucky: everything that is possible, in turn.
                let reported = self.report(1).await;
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
        self.world.store.apply_outcomes(&ns(), &set, LEASE_MS).await.expect("applied");
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
        self.world.assert_consistent().await;
    }

    /// No join began before everything that it joins had ended.
    async fn check_order(&self) {
        let early = "select count(*) from tasker.steps j
                     join tasker.batches b on b.task_id = j.task_id
                     join tasker.steps m on m.batch_id = b.id
                     join tasker.outcomes o on o.step_id = m.id
                     where j.kind = 'deferred_convergence' and o.created_at > j.enqueued_at
                       and j.task_id = $2 and j.name || ' ' || b.worker_template = any($1)";
        let pairs: Vec<String> = self
            .template
            .steps
            .iter()
            .filter(|step| step.kind == StepKind::DeferredConvergence)
            .flat_map(|join| join.dependencies.iter().map(move |d| format!("{} {d}", join.name)))
            .collect();
        let early: i64 = sqlx::query_scalar(early)
            .bind(&pairs)
            .bind(self.task.as_uuid())
            .fetch_one(&self.world.pool)
            .await
            .expect("read");
        assert_eq!(early, 0, "joins that began too early");
    }

    /// Retries the task; what could be retried works now.
    async fn repair(&mut self) -> bool {
        let request = RepairRequest {
            task: self.task,
            target: RepairTarget::Task,
            principal: "test".into(),
            reason: "test".into(),
        };
        let Ok(done) = self.world.store.repair(&request).await.expect("decided") else {
            return false;
        };
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

async fn play(pool: &PgPool, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (text, template) = valid_source(&mut random, seed);
    let script = script(&mut random, &template);
    let world = World::of(pool.clone(), &text).await;
    let task = world.submit().await.id;
    let mut run = Run { world: &world, random: &mut random, template: &template, script, task };
    run.play_out().await;
    run.check("ran").await;
    run.check_order().await;
    // Each repair brings something more to its end.
    for _ in 0..template.steps.len() {
        if !run.repair().await {
            break;
        }
        run.play_out().await;
        run.check("repaired").await;
        run.check_order().await;
    }
    let (state, ..) = end(&template, &finals(&template, &run.script));
    let reachable =
        run.script.failing.is_empty() && run.script.batches.values().all(|b| b.failing == 0);
    assert!(!reachable || state == TaskState::Complete, "{state}");
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[sqlx::test]
async fn random_tasks_end_as_the_model_says(pool: PgPool) {
    let (tasks, first) = (number("TASKER_RANDOM_TASKS", TASKS), number("TASKER_RANDOM_SEED", 1));
    for seed in first..first + tasks {
        let pool = pool.clone();
        let played = tokio::spawn(async move { play(&pool, seed).await }).await;
        assert!(played.is_ok(), "TASKER_RANDOM_SEED={seed} fails; its panic is above");
    }
}
