//! What a benchmark costs: processor time by process, and what the servers were asked for.

use std::fs;
use std::ops::{AddAssign, Sub};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use tasker_store::Store;

use super::resident::with_children;
use crate::dev::{DevState, Pids};

/// Costs of one step, on average. Parts that nobody counts are left out.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct PerStep {
    pub(super) cpu_us: Cpu,
    pub(super) wal_bytes: f64,
    pub(super) writing_transactions: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) statements: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome_transactions: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) messages_sent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) messages_delivered: Option<f64>,
}

/// Processor time of each kind of process, all of one kind together.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Cpu {
    pub(super) orchestrator: f64,
    pub(super) worker: f64,
    pub(super) nats: f64,
    pub(super) postgres: f64,
}

/// Sums up what is spent between [`Meter::begin`] and [`Meter::end`].
pub(super) struct Meter {
    pids: Pids,
    store: Store,
    nats_counters: Option<String>,
    begun: Option<Reading>,
    spent: Reading,
}

/// Counters, or how much they have risen.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    /// In microseconds.
    cpu: Cpu,
    wal_bytes: i64,
    writing_transactions: i64,
    statements: Option<i64>,
    outcome_statements: Option<i64>,
    sent: Option<i64>,
    delivered: Option<i64>,
}

impl Meter {
    pub(super) fn new(state: &DevState, store: &Store) -> Self {
        Self {
            pids: state.pids.clone(),
            store: store.clone(),
            nats_counters: state.nats_counters.clone(),
            begun: None,
            spent: Reading::default(),
        }
    }

    pub(super) async fn begin(&mut self) -> anyhow::Result<()> {
        self.begun = Some(self.read().await?);
        Ok(())
    }

    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        if let Some(before) = self.begun.take() {
            self.spent += self.read().await? - before;
        }
        Ok(())
    }

    /// What each of so many steps has cost.
    pub(super) fn per_step(&self, steps: u64) -> PerStep {
        let steps = steps.max(1) as f64;
        let each = |n: i64| n as f64 / steps;
        let Reading { cpu, .. } = self.spent;
        PerStep {
            cpu_us: Cpu {
                orchestrator: cpu.orchestrator / steps,
                worker: cpu.worker / steps,
                nats: cpu.nats / steps,
                postgres: cpu.postgres / steps,
            },
            wal_bytes: each(self.spent.wal_bytes),
            writing_transactions: each(self.spent.writing_transactions),
            statements: self.spent.statements.map(each),
            outcome_transactions: self.spent.outcome_statements.map(each),
            messages_sent: self.spent.sent.map(each),
            messages_delivered: self.spent.delivered.map(each),
        }
    }

    async fn read(&self) -> anyhow::Result<Reading> {
        let server = self.store.server_counters().await?;
        let (sent, delivered) = match &self.nats_counters {
            Some(url) => {
                let bus: Value = reqwest::get(url).await?.error_for_status()?.json().await?;
                let number = |key: &str| {
                    bus[key].as_i64().with_context(|| format!("nats-server tells no {key}"))
                };
                (Some(number("in_msgs")?), Some(number("out_msgs")?))
            }
            None => (None, None),
        };
        Ok(Reading {
            cpu: cpu_of(&self.pids),
            wal_bytes: server.wal_bytes,
            writing_transactions: server.writing_transactions,
            statements: server.statements,
            outcome_statements: server.outcome_statements,
            sent,
            delivered,
        })
    }
}

fn minus(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    Some(a? - b?)
}

impl Sub for Reading {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu: Cpu {
                orchestrator: self.cpu.orchestrator - before.cpu.orchestrator,
                worker: self.cpu.worker - before.cpu.worker,
                nats: self.cpu.nats - before.cpu.nats,
                postgres: self.cpu.postgres - before.cpu.postgres,
            },
            wal_bytes: self.wal_bytes - before.wal_bytes,
            writing_transactions: self.writing_transactions - before.writing_transactions,
            statements: minus(self.statements, before.statements),
            outcome_statements: minus(self.outcome_statements, before.outcome_statements),
            sent: minus(self.sent, before.sent),
            delivered: minus(self.delivered, before.delivered),
        }
    }
}

impl AddAssign for Reading {
    fn add_assign(&mut self, more: Self) {
        let plus = |a: Option<i64>, b: Option<i64>| b.map(|b| a.unwrap_or(0) + b);
        self.cpu.orchestrator += more.cpu.orchestrator;
        self.cpu.worker += more.cpu.worker;
        self.cpu.nats += more.cpu.nats;
        self.cpu.postgres += more.cpu.postgres;
        self.wal_bytes += more.wal_bytes;
        self.writing_transactions += more.writing_transactions;
        self.statements = plus(self.statements, more.statements);
        self.outcome_statements = plus(self.outcome_statements, more.outcome_statements);
        self.sent = plus(self.sent, more.sent);
        self.delivered = plus(self.delivered, more.delivered);
    }
}

fn cpu_of(pids: &Pids) -> Cpu {
    let all = |pids: &[i32]| pids.iter().filter_map(|&pid| micros(pid)).sum();
    Cpu {
        orchestrator: all(&pids.orchestrators),
        worker: all(&pids.workers),
        nats: pids.nats.and_then(micros).unwrap_or(0.0),
        postgres: pids.postgres.map_or(0.0, |pid| all(&with_children(pid))),
    }
}

/// Microseconds of processor time of a process and of those of its children that have ended.
fn micros(pid: i32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold blanks; the fields are numbered from 1 in proc(5).
    let after_name = stat.rsplit_once(')')?.1;
    let ticks: u64 = after_name.split_whitespace().skip(11).take(4).filter_map(number).sum();
    // USER_HZ is 100 on Linux, whatever the kernel counts in.
    Some(ticks as f64 * 10_000.0)
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn this_process_uses_its_processor() {
        let own = std::process::id() as i32;
        let before = micros(own).expect("its time");
        let begun = Instant::now();
        while micros(own).is_some_and(|now| now < before + 30_000.0) {
            assert!(begun.elapsed() < Duration::from_secs(60), "no time goes by");
        }
        assert_eq!(micros(i32::MAX), None);
    }

    #[test]
    fn what_nobody_counts_stays_unknown() {
        let counted = Reading { statements: Some(7), sent: None, ..Reading::default() };
        let more = Reading { statements: Some(17), sent: Some(3), ..Reading::default() };
        let mut sum = Reading::default();
        sum += more - counted;
        sum += more - counted;
        assert_eq!((sum.statements, sum.sent), (Some(20), None));
    }
}
