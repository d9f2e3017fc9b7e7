//! Several nodes at the same random task.

use super::super::{LEASE_MS, ns};
use super::Run;
use crate::FinishedAttempt;

impl Run<'_> {
    /// Two nodes report halves of the set, while others converge and sweep.
    pub(super) async fn report_in_parallel(&self, set: &[FinishedAttempt]) {
        let store = &self.world.store;
        let (one, other) = set.split_at(set.len() / 2);
        let (tasks, ns) = ([self.task], ns());
        let (one, other, converged, swept) = tokio::join!(
            store.apply_outcomes(&ns, one, LEASE_MS),
            store.apply_outcomes(&ns, other, LEASE_MS),
            store.converge_tasks(&tasks),
            store.cancel_members(2),
        );
        one.and(other).expect("applied");
        converged.expect("converged");
        swept.expect("swept");
        self.check_joins().await;
    }

    /// At no time does a join exist of which a batch has members left.
    async fn check_joins(&self) {
        let early: i64 = sqlx::query_scalar(
            "select count(*) from tasker.steps j
             join tasker.batches b on b.task_id = j.task_id and b.remaining > 0
             where j.task_id = $2 and j.kind = 'deferred_convergence'
               and j.name || ' ' || b.worker_template = any($1)",
        )
        .bind(self.joins())
        .bind(self.task.as_uuid())
        .fetch_one(&self.world.pool)
        .await
        .expect("read");
        assert_eq!(early, 0, "joins beside members that have not ended");
    }
}
