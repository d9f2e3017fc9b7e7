//! Workers as their heartbeats describe them.

use std::ops::Range;
use std::time::Duration;

use tasker_messages::{
    Heartbeat, Namespace, QueueLoad, Refusal, Scope, WorkerId, WorkerList, WorkerView, code,
};
use tasker_workflow::Offer;

use crate::pool::{commit, retry_conflicts};
use crate::views::{parse, rfc3339};
use crate::{Store, StoreError};

/// Namespaces in which one worker is shown.
const MAX_PLACES: u32 = 10_000;

impl Store {
    /// Records a sign of life. Returns whether somebody wants the worker to take nothing more.
    pub async fn record_heartbeat(
        &self,
        namespace: &Namespace,
        beat: &Heartbeat,
    ) -> Result<bool, StoreError> {
        let queues =
            serde_json::to_value(&beat.queues).map_err(|e| StoreError::stored("queues", e))?;
        let asked = sqlx::query_scalar!(
            r#"insert into tasker.workers
                 (id, namespace, name, build, queues, callables, draining, resolves, drained)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             on conflict (id, namespace) do update
             set queues = excluded.queues, callables = excluded.callables,
                 -- Beats may be written in another order than they were sent, and who drains never
                 -- takes up again: a process that comes back has another id.
                 draining = workers.draining or excluded.draining,
                 drained = workers.drained or excluded.drained,
                 resolves = excluded.resolves, last_beat_at = now()
             returning drain_asked_at is not null as "asked!""#,
            beat.worker.as_uuid(),
            namespace.as_str(),
            beat.name,
            beat.build,
            queues,
            &beat.callables,
            beat.draining,
            beat.resolves,
            beat.drained,
        )
        .fetch_one(&self.api)
        .await?;
        Ok(asked)
    }

    /// Workers that were heard of within the last hour, by namespace and name.
    pub async fn list_workers(
        &self,
        scope: &Scope,
        live_within: Duration,
        limit: u32,
    ) -> Result<WorkerList, StoreError> {
        self.read_workers(scope, None, live_within, limit).await
    }

    /// One worker, once per namespace that it serves; nothing if it was not heard of within the last
    /// hour, or serves none of these.
    pub async fn worker(
        &self,
        scope: &Scope,
        id: WorkerId,
        live_within: Duration,
    ) -> Result<WorkerList, StoreError> {
        self.read_workers(scope, Some(id), live_within, MAX_PLACES).await
    }

    async fn read_workers(
        &self,
        scope: &Scope,
        id: Option<WorkerId>,
        live_within: Duration,
        limit: u32,
    ) -> Result<WorkerList, StoreError> {
        let names = scope.names();
        let rows = sqlx::query!(
            r#"select id, namespace, name, build, queues, callables, resolves, draining, drained,
                      drain_asked_at, last_beat_at,
                      last_beat_at > now() - make_interval(secs => $2) as "live!"
               from tasker.workers
               where ($1::text[] is null or namespace = any($1)) and ($4::uuid is null or id = $4)
               order by namespace, name, id
               limit $3"#,
            names.as_deref(),
            live_within.as_secs_f64(),
            i64::from(limit),
            id.map(WorkerId::as_uuid),
        )
        .fetch_all(&self.api)
        .await?;
        let mut workers = Vec::with_capacity(rows.len());
        for row in rows {
            workers.push(WorkerView {
                id: WorkerId::from_uuid(row.id),
                namespace: parse("namespace", &row.namespace)?,
                name: row.name,
                build: row.build,
                queues: queues(row.queues)?,
                callables: row.callables,
                resolves: row.resolves,
                draining: row.draining,
                drained: row.drained,
                drain_asked_at: row.drain_asked_at.map(rfc3339),
                live: row.live,
                last_beat_at: rfc3339(row.last_beat_at),
            });
        }
        Ok(WorkerList { workers })
    }

    /// Keeps the wish that a worker takes nothing more, and records who has it. The wish stays, however
    /// often the worker is told of it. It is lost to all of the namespaces that it serves, so that
    /// whoever asks must be allowed to in each.
    pub async fn ask_to_drain(
        &self,
        scope: &Scope,
        id: WorkerId,
        principal: &str,
        reason: &str,
        live_within: Duration,
    ) -> Result<Result<(), Refusal>, StoreError> {
        retry_conflicts(|| self.write_wish(scope, id, principal, reason, live_within)).await
    }

    async fn write_wish(
        &self,
        scope: &Scope,
        id: WorkerId,
        principal: &str,
        reason: &str,
        live_within: Duration,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let mut tx = self.api.begin().await?;
        let rows = sqlx::query!(
            r#"select namespace, name,
                      last_beat_at > now() - make_interval(secs => $2) as "live!"
               from tasker.workers where id = $1
               order by namespace
               for update"#,
            id.as_uuid(),
            live_within.as_secs_f64(),
        )
        .fetch_all(&mut *tx)
        .await?;
        let name = rows.iter().find(|row| scope.holds(&row.namespace)).map(|row| row.name.clone());
        let Some(name) = name else {
            tx.rollback().await?;
            return Ok(Err(not_heard_of(id)));
        };
        if !rows.iter().all(|row| scope.holds(&row.namespace)) {
            tx.rollback().await?;
            let message = format!("the worker {id} ({name}) serves other namespaces as well");
            return Ok(Err(Refusal::new(code::FOREIGN_NAMESPACE, message)));
        }
        if !rows.iter().any(|row| row.live) {
            tx.rollback().await?;
            let message =
                format!("the worker {id} ({name}) is silent: it has ended, or cannot be reached");
            return Ok(Err(Refusal::new(code::WORKER_SILENT, message)));
        }
        sqlx::query!(
            "update tasker.workers set drain_asked_at = coalesce(drain_asked_at, now())
             where id = $1",
            id.as_uuid(),
        )
        .execute(&mut *tx)
        .await?;
        // Once for each namespace that loses it.
        let namespaces: Vec<String> = rows.into_iter().map(|row| row.namespace).collect();
        sqlx::query!(
            "insert into tasker.admin_actions (namespace, action, principal, reason)
             select namespace, 'drain_worker', $2, $3 from unnest($1::text[]) as n(namespace)",
            &namespaces,
            principal,
            format!("worker {id} ({name}): {reason}"),
        )
        .execute(&mut *tx)
        .await?;
        commit(tx).await?;
        Ok(Ok(()))
    }

    /// What live workers of a namespace pull and have; one that drains takes nothing more.
    pub(crate) async fn offers(
        &self,
        namespace: &Namespace,
        live_within: Duration,
    ) -> Result<Vec<Offer>, StoreError> {
        let rows = sqlx::query!(
            "select queues, callables, resolves from tasker.workers
             where namespace = $1 and not draining
               and last_beat_at > now() - make_interval(secs => $2)",
            namespace.as_str(),
            live_within.as_secs_f64(),
        )
        .fetch_all(&self.api)
        .await?;
        let mut offers = Vec::with_capacity(rows.len());
        for row in rows {
            let queues = queues(row.queues)?;
            offers.push(Offer { queues, callables: row.callables, resolves: row.resolves });
        }
        Ok(offers)
    }

    /// Whether a worker of the namespace that had not drained was last heard of within this range of ages.
    pub async fn has_vanished_workers(
        &self,
        namespace: &Namespace,
        ages: Range<Duration>,
    ) -> Result<bool, StoreError> {
        let vanished = sqlx::query_file_scalar!(
            "queries/reconcile/vanished_workers.sql",
            namespace.as_str(),
            ages.start.as_secs_f64(),
            ages.end.as_secs_f64(),
        )
        .fetch_one(&self.hot)
        .await?;
        Ok(vanished)
    }

    /// Forgets workers that have been silent for an hour.
    pub async fn forget_silent_workers(&self) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "delete from tasker.workers where last_beat_at < now() - interval '1 hour'"
        )
        .execute(&self.api)
        .await?;
        Ok(done.rows_affected())
    }
}

/// What is said of a worker that has no row.
pub fn not_heard_of(id: WorkerId) -> Refusal {
    let message = format!("no worker {id} was heard of within the last hour");
    Refusal::new(code::WORKER_NOT_FOUND, message)
}

fn queues(json: serde_json::Value) -> Result<Vec<QueueLoad>, StoreError> {
    serde_json::from_value(json).map_err(|e| StoreError::stored("queues", e))
}
