//! The standard load: batches of 500 and small graphs in two namespaces, submitted one after the other
//! for as long as a fault goes on, each checked against its formula. In one of them nothing sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tasker_tests::{Answer, Api, Cluster, template};
use tokio::task::JoinSet;

/// Of one batch.
const MEMBERS: u64 = 500;
/// Of each hundred members, the last fail for good.
const LASTING: u64 = 98;
const NAMESPACES: [&str; 2] = ["chaos-a", "chaos-b"];
/// Workflows under way at a time.
const BATCHES: usize = 4;
const GRAPHS: usize = 8;
const LANES: usize = BATCHES + GRAPHS;
/// Between the end of one workflow and the next: the load is to last, not to be as large as can be.
const PAUSE: Duration = Duration::from_millis(500);
/// Nobody who takes this long answers any more.
const ANSWER: Duration = Duration::from_secs(8);
/// For so long a task may be neither refused nor accepted, and not be readable.
const OUTAGE: Duration = Duration::from_secs(120);
/// From the last fault to the end of all tasks.
const RECOVERY: Duration = Duration::from_secs(60);

/// A load that goes on.
pub(super) struct Load {
    shared: Arc<Shared>,
    lanes: JoinSet<anyhow::Result<()>>,
}

struct Shared {
    api: Api,
    stopped: AtomicBool,
    next_seed: AtomicU64,
    accepted: std::sync::Mutex<Vec<String>>,
    /// Workflows of each lane that have ended: first those with batches.
    ended: [AtomicU64; LANES],
    /// Submissions whose fate was unknown for a while.
    unknown: AtomicU64,
}

/// What a load has come to.
pub(super) struct Done {
    /// The ids of all tasks that were accepted.
    pub(super) accepted: Vec<String>,
    pub(super) batches: u64,
    pub(super) graphs: u64,
    pub(super) unknown: u64,
    /// From the end of the fault to that of the last task.
    pub(super) recovery: Duration,
}

impl Load {
    pub(super) async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let api = cluster.api()?;
        for namespace in NAMESPACES {
            for name in ["chaos_batch", "chaos_dag"] {
                api.register(&template(name)?.replace("NAMESPACE", namespace)).await?;
            }
        }
        let shared = Arc::new(Shared {
            api,
            stopped: AtomicBool::new(false),
            next_seed: AtomicU64::new(0),
            accepted: std::sync::Mutex::default(),
            ended: [const { AtomicU64::new(0) }; LANES],
            unknown: AtomicU64::new(0),
        });
        let mut lanes = JoinSet::new();
        for lane in 0..LANES {
            lanes.spawn(Arc::clone(&shared).run(lane));
        }
        Ok(Self { shared, lanes })
    }

    /// Workflows that have ended so far.
    pub(super) fn ended(&self) -> u64 {
        self.by_lane().iter().sum()
    }

    /// The same, by lane: each works off one workflow after the other.
    pub(super) fn by_lane(&self) -> [u64; LANES] {
        self.shared.ended.each_ref().map(|ended| ended.load(Ordering::Relaxed))
    }

    /// Submits nothing more and waits for the end of everything.
    pub(super) async fn finish(mut self) -> anyhow::Result<Done> {
        let healed = Instant::now();
        self.shared.stopped.store(true, Ordering::Relaxed);
        let lanes = async {
            while let Some(lane) = self.lanes.join_next().await {
                lane.context("a lane of the load panicked")??;
            }
            anyhow::Ok(())
        };
        let ended = tokio::time::timeout(RECOVERY, lanes).await;
        ended.with_context(|| {
            format!("not all tasks have ended {RECOVERY:?} after the last fault")
        })??;
        let recovery = healed.elapsed();
        let ended = self.by_lane();
        let (batches, graphs) = ended.split_at(BATCHES);
        let Shared { accepted, unknown, .. } = &*self.shared;
        Ok(Done {
            accepted: std::mem::take(&mut *accepted.lock().expect("no lane panicked")),
            batches: batches.iter().sum(),
            graphs: graphs.iter().sum(),
            unknown: unknown.load(Ordering::Relaxed),
            recovery,
        })
    }
}

impl Shared {
    async fn run(self: Arc<Self>, lane: usize) -> anyhow::Result<()> {
        let batches = lane < BATCHES;
        while !self.stopped.load(Ordering::Relaxed) {
            let seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
            let name = if batches { "chaos_batch" } else { "chaos_dag" };
            let id = self.submit(name, seed).await?;
            let task = self.ended(&id).await?;
            let (step, expect) = if batches { batch(seed) } else { graph(seed) };
            let steps = task["steps"].as_array().map_or(&[][..], Vec::as_slice);
            let got = steps.iter().find(|s| s["name"] == step);
            let got = got.map_or(Value::Null, |s| s["results"]["result"].clone());
            ensure!(
                task["state"] == "complete" && got == expect,
                "{id} is {}, not {expect} but {got}: {}",
                task["state"],
                task["batches"]
            );
            self.ended[lane].fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Submits until it is accepted, always under the same key.
    async fn submit(&self, name: &str, seed: u64) -> anyhow::Result<String> {
        let namespace = NAMESPACES[(seed % 2) as usize];
        // Where nothing sleeps, members come in bundles.
        let quick = namespace == NAMESPACES[1];
        let context = json!({"seed": seed, "n": MEMBERS, "quick": quick});
        let document = json!({"namespace": namespace, "name": name, "context": context});
        let (key, begun) = (format!("{name}-{seed}"), Instant::now());
        let mut unsure = false;
        loop {
            match answer(self.api.post_task(&document, Some(&key))).await {
                Some(answer) if matches!(answer.status, 200 | 201) => {
                    let id = answer.body["id"].as_str().context("an id")?.to_owned();
                    self.accepted.lock().expect("no lane panicked").push(id.clone());
                    self.unknown.fetch_add(u64::from(unsure), Ordering::Relaxed);
                    return Ok(id);
                }
                Some(answer) if matches!(answer.status, 429 | 503) => {}
                Some(answer) => bail!("{document}: {} {}", answer.status, answer.text),
                None => unsure = true,
            }
            ensure!(begun.elapsed() < OUTAGE, "{key} is not accepted within {OUTAGE:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ended(&self, id: &str) -> anyhow::Result<Value> {
        let path = format!("/v1/tasks/{id}?wait=3");
        let mut last_answer = Instant::now();
        loop {
            match answer(self.api.send("GET", &path, &[], Vec::new())).await {
                Some(answer) if answer.status == 200 => {
                    let open = ["pending", "in_progress"].map(Value::from);
                    if !open.contains(&answer.body["state"]) {
                        return Ok(answer.body);
                    }
                    last_answer = Instant::now();
                }
                Some(answer) if answer.status != 503 => {
                    bail!("{path}: {} {}", answer.status, answer.text)
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            ensure!(last_answer.elapsed() < OUTAGE, "{id} cannot be read for {OUTAGE:?}");
        }
    }
}

/// The answer, unless there is none soon: an orchestrator may have been stopped or killed.
async fn answer(request: impl Future<Output = anyhow::Result<Answer>>) -> Option<Answer> {
    tokio::time::timeout(ANSWER, request).await.ok()?.ok()
}

/// The aggregator, and what it must return.
fn batch(seed: u64) -> (&'static str, Value) {
    let lasting = || (0..MEMBERS).filter(|value| (seed + value) % 100 < LASTING);
    let succeeded = lasting().count() as u64;
    let expect = json!({
        "sum": lasting().sum::<u64>(), "xor": lasting().fold(0, |all, value| all ^ value),
        "succeeded": succeeded, "failed": MEMBERS - succeeded,
    });
    ("sum", expect)
}

/// The last step, and what it must return: what the decision has chosen is in it.
fn graph(seed: u64) -> (&'static str, Value) {
    ("end", json!({"value": seed + 4 + seed % 2}))
}
