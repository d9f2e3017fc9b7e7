//! Workers as their heartbeats describe them.

use std::time::Duration;

use tasker_messages::{Heartbeat, Namespace, QueueLoad, WorkerId, WorkerList, WorkerView};
use tasker_workflow::Offer;

use crate::views::{parse, rfc3339};
use crate::{Store, StoreError};

impl Store {
    /// Records a sign of life.
    pub async fn record_heartbeat(
        &self,
        namespace: &Namespace,
        beat: &Heartbeat,
    ) -> Result<(), StoreError> {
        let queues =
            serde_json::to_value(&beat.queues).map_err(|e| StoreError::stored("queues", e))?;
        sqlx::query!(
            "insert into tasker.workers
                 (id, namespace, name, build, queues, callables, draining, resolves)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (id, namespace) do update
             set queues = excluded.queues, callables = excluded.callables,
                 draining = excluded.draining, resolves = excluded.resolves,
                 last_beat_at = now()",
            beat.worker.as_uuid(),
            namespace.as_str(),
            beat.name,
            beat.build,
            queues,
            &beat.callables,
            beat.draining,
            beat.resolves,
        )
        .execute(&self.api)
        .await?;
        Ok(())
    }

    /// Workers that were heard of within the last hour, by namespace and name.
    pub async fn list_workers(
        &self,
        namespace: Option<&Namespace>,
        live_within: Duration,
        limit: u32,
    ) -> Result<WorkerList, StoreError> {
        let rows = sqlx::query!(
            r#"select id, namespace, name, build, queues, callables, resolves, draining, last_beat_at,
                      last_beat_at > now() - make_interval(secs => $2) as "live!"
               from tasker.workers
               where $1::text is null or namespace = $1
               order by namespace, name, id
               limit $3"#,
            namespace.map(Namespace::as_str),
            live_within.as_secs_f64(),
            i64::from(limit),
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
                live: row.live,
                last_beat_at: rfc3339(row.last_beat_at),
            });
        }
        Ok(WorkerList { workers })
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

fn queues(json: serde_json::Value) -> Result<Vec<QueueLoad>, StoreError> {
    serde_json::from_value(json).map_err(|e| StoreError::stored("queues", e))
}
