//! Claims: a step that was delivered before runs again only under a new attempt.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use tasker_guards::{CrashPoint, Guard, guard_is_off, pass};
use tasker_messages::{Claim, ClaimVerdict, Namespace, ReleasedStep, StepId, StepKind, WorkerId};
use tasker_workflow::{ClaimDecision, ClaimFacts, decide_claim};
use uuid::Uuid;

use crate::pool::{Tx, commit, retry_conflicts};
use crate::{Store, StoreError};

/// How claims are decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimTerms {
    /// For how long a step is leased that may run, in milliseconds.
    pub lease_ms: u64,
    /// How old the row of a worker is that has vanished, and may have had what is delivered again.
    pub vanished: Range<Duration>,
}

/// What became of a set of claims.
#[derive(Debug, Default)]
pub struct Granted {
    /// One per claim, in order.
    pub verdicts: Vec<ClaimVerdict>,
    /// Steps whose budget was used up by workers that vanished: they are to be ended with an error
    /// outcome for this attempt.
    pub poisoned: Vec<Reclaim>,
    /// Nothing was decided: nobody waits for it any more.
    pub is_late: bool,
}

/// A step that is to be ended because its workers vanished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reclaim {
    /// The step.
    pub step_id: StepId,
    /// What it is.
    pub kind: StepKind,
    /// The attempt that is current.
    pub attempt: u32,
    /// How often it was tried.
    pub tries: u32,
}

impl Store {
    /// Decides claims of one worker: raises the attempt of each step that may run and leases it. Once
    /// the rows are locked after `until`, nothing is decided: whoever asked has asked again, and that
    /// request is decided after this one.
    pub async fn claim_steps(
        &self,
        namespace: &Namespace,
        worker: WorkerId,
        claims: &[Claim],
        terms: &ClaimTerms,
        until: Option<Instant>,
    ) -> Result<Granted, StoreError> {
        // Before the transaction: it holds rows, and would wait for a second connection.
        let vanished = guard_is_off(Guard::ChargeByEvidence)
            || claims.iter().any(|claim| claim.redelivered)
                && self.has_vanished_workers(namespace, terms.vanished.clone()).await?;
        let terms = (terms.lease_ms, vanished);
        retry_conflicts(|| self.claim_once(namespace, worker, claims, terms, until)).await
    }

    async fn claim_once(
        &self,
        namespace: &Namespace,
        worker: WorkerId,
        claims: &[Claim],
        (lease_ms, a_worker_has_vanished): (u64, bool),
        until: Option<Instant>,
    ) -> Result<Granted, StoreError> {
        let ids: Vec<Uuid> = claims.iter().map(|c| c.step_id.as_uuid()).collect();
        let mut tx = self.hot.begin().await?;
        sqlx::query_file_scalar!("queries/outcomes/lock_steps.sql", &ids, namespace.as_str())
            .fetch_all(&mut *tx)
            .await?;
        if until.is_some_and(|until| Instant::now() > until) {
            return Ok(Granted { is_late: true, ..Granted::default() });
        }
        let rows = sqlx::query_file!(
            "queries/claims/facts.sql",
            &ids,
            namespace.as_str(),
            worker.as_uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut granted = Granted::default();
        let mut run = Vec::new();
        let rows: HashMap<Uuid, _> = rows.into_iter().map(|row| (row.id, row)).collect();
        // A request that names a step twice may run it once; an earlier dispatch in front of the one that
        // counts does not stand in its way.
        let mut settled: HashSet<Uuid> = HashSet::new();
        for claim in claims {
            let id = claim.step_id.as_uuid();
            if settled.contains(&id) {
                granted.verdicts.push(ClaimVerdict::Held);
                continue;
            }
            let Some(row) = rows.get(&id) else {
                granted.verdicts.push(ClaimVerdict::Drop(tasker_messages::DropReason::Unknown));
                continue;
            };
            let template =
                self.template(tasker_messages::TemplateId::from_uuid(row.template_id)).await?;
            let max_attempts =
                template.step(&row.template_step).map_or(1, |(_, step)| step.retry.max_attempts);
            let facts = ClaimFacts {
                ended: row.ended && !guard_is_off(Guard::TestBeforeClaim),
                live: row.live,
                held_by_other: row.held_by_other,
                held_by_claimant: row.held_by_claimant,
                may_have_cost_a_worker: row.was_held || a_worker_has_vanished,
                dispatch_seq: row.dispatch_seq as u32,
                attempt: row.attempt as u32,
                tries: row.tries as u32,
                max_attempts,
            };
            let decision = decide_claim(claim, &facts);
            granted.verdicts.push(decision.verdict());
            if matches!(decision, ClaimDecision::Run { .. } | ClaimDecision::Poison { .. }) {
                settled.insert(id);
            }
            match decision {
                ClaimDecision::Run { attempt, tries } => {
                    run.push((claim.step_id.as_uuid(), attempt as i32, tries as i32));
                }
                ClaimDecision::Poison { tries } => granted.poisoned.push(Reclaim {
                    step_id: claim.step_id,
                    kind: row.kind.parse().map_err(|e| StoreError::stored("step kind", e))?,
                    attempt: row.attempt as u32,
                    tries,
                }),
                ClaimDecision::Held | ClaimDecision::Drop(_) => {}
            }
        }
        raise(&mut tx, worker, &run, lease_ms).await?;
        pass(CrashPoint::ClaimDecided);
        commit(tx).await?;
        pass(CrashPoint::ClaimStored);
        Ok(granted)
    }

    /// Gives steps back that a worker pulled but does not run: each is dispatched again, without a
    /// charge, and as another attempt if this one was begun. An attempt that was superseded has nothing
    /// to give back. Returns those that were really given back.
    pub async fn release_steps(
        &self,
        namespace: &Namespace,
        worker: WorkerId,
        steps: &[ReleasedStep],
    ) -> Result<Vec<StepId>, StoreError> {
        retry_conflicts(|| async {
            let ids: Vec<Uuid> = steps.iter().map(|s| s.step_id.as_uuid()).collect();
            let seqs: Vec<i32> = steps.iter().map(|s| s.dispatch_seq as i32).collect();
            let attempts: Vec<i32> = steps.iter().map(|s| s.attempt as i32).collect();
            let unstarted: Vec<bool> = steps.iter().map(|s| s.unstarted).collect();
            let mut tx = self.hot.begin().await?;
            sqlx::query_file_scalar!("queries/outcomes/lock_steps.sql", &ids, namespace.as_str())
                .fetch_all(&mut *tx)
                .await?;
            let released = sqlx::query_file_scalar!(
                "queries/claims/release.sql",
                &ids,
                &seqs,
                namespace.as_str(),
                &attempts,
                &unstarted,
                worker.as_uuid(),
            )
            .fetch_all(&mut *tx)
            .await?;
            commit(tx).await?;
            Ok(released.into_iter().map(StepId::from_uuid).collect())
        })
        .await
    }
}

async fn raise(
    tx: &mut Tx,
    worker: WorkerId,
    run: &[(Uuid, i32, i32)],
    lease_ms: u64,
) -> Result<(), StoreError> {
    if run.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update tasker.steps s
         set attempt = d.attempt, tries = d.tries, state = 'in_progress', sent_seq = dispatch_seq,
             started_at = now(),
             lease_worker = $4, lease_until = now() + make_interval(secs => $5)
         from unnest($1::uuid[], $2::int[], $3::int[]) as d(id, attempt, tries)
         where s.id = d.id",
        &run.iter().map(|r| r.0).collect::<Vec<_>>(),
        &run.iter().map(|r| r.1).collect::<Vec<_>>(),
        &run.iter().map(|r| r.2).collect::<Vec<_>>(),
        worker.as_uuid(),
        lease_ms as f64 / 1000.0,
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
