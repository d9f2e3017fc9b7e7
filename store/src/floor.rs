//! The bare pipeline of `tasker bench floor`: tables as wide as the real ones, no engine logic.

use std::fmt::Write;

use sqlx::PgPool;
use uuid::Uuid;

use crate::{Store, StoreError};

/// The tables of the bare pipeline, in a schema of their own.
#[derive(Debug, Clone)]
pub struct Floor {
    pool: PgPool,
}

const DDL: [&str; 4] = [
    "drop schema if exists tasker_floor cascade",
    "create schema tasker_floor",
    "create table tasker_floor.steps (like tasker.steps including defaults)",
    "create table tasker_floor.outcomes (like tasker.outcomes including defaults)",
];
const KEYS: [&str; 2] = [
    "alter table tasker_floor.steps add primary key (id)",
    "alter table tasker_floor.outcomes add primary key (step_id)",
];

impl Store {
    /// Makes the tables of the bare pipeline, empty.
    pub async fn create_floor(&self) -> Result<Floor, StoreError> {
        for statement in DDL.into_iter().chain(KEYS) {
            sqlx::query(statement).execute(&self.hot).await?;
        }
        Ok(Floor { pool: self.hot.clone() })
    }
}

impl Floor {
    /// Inserts steps with COPY.
    pub async fn copy_steps(&self, base: u128, from: u32, upto: u32) -> Result<(), StoreError> {
        let (task, batch) = (Uuid::from_u128(base), Uuid::from_u128(base));
        let mut rows = String::new();
        for n in from..upto {
            let id = Uuid::from_u128(base | u128::from(n));
            let cursor = format!(
                r#"{{"batch_id":"{:03}","start_cursor":{n},"end_cursor":{},"batch_size":1}}"#,
                n + 1,
                n + 1
            );
            // Writing to a String cannot fail.
            let _infallible = writeln!(
                rows,
                "{id}\t{task}\tbench\tadd_one_{:03}\tbatch_worker\tenqueued\t1\t{batch}\t{cursor}\tnow",
                n + 1
            );
        }
        let mut connection = self.pool.acquire().await?;
        let mut copy = connection
            .copy_in_raw(
                "copy tasker_floor.steps (id, task_id, namespace, name, kind, state, sent_seq, \
                 batch_id, cursor, enqueued_at) from stdin",
            )
            .await?;
        copy.send(rows.into_bytes()).await?;
        copy.finish().await?;
        Ok(())
    }

    /// Inserts the steps of one task by one statement.
    pub async fn insert_steps(&self, ids: &[Uuid], task: Uuid) -> Result<(), StoreError> {
        sqlx::query(
            "insert into tasker_floor.steps
                 (id, task_id, namespace, name, kind, state, sent_seq, enqueued_at)
             select id, $2, 'bench', 'step', 'standard', 'enqueued', 1, now()
             from unnest($1::uuid[]) as i(id)",
        )
        .bind(ids)
        .bind(task)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The results of some steps, in the order of their ids.
    pub async fn results(&self, ids: &[Uuid]) -> Result<Vec<String>, StoreError> {
        let results = sqlx::query_scalar(
            "select result::text from tasker_floor.outcomes where step_id = any($1) order by step_id",
        );
        Ok(results.bind(ids).fetch_all(&self.pool).await?)
    }

    /// Inserts outcomes, fenced as the engine does it.
    pub async fn insert_outcomes(
        &self,
        ids: &[Uuid],
        results: &[String],
        worker: Uuid,
    ) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "insert into tasker_floor.outcomes (step_id, state, attempt, result, worker)
             select l.id, 'complete', 1, l.result::json, $3
             from (select s.id, i.result
                   from unnest($1::uuid[], $2::text[]) as i(id, result)
                   join tasker_floor.steps s on s.id = i.id and s.attempt = 1
                   order by s.id for share of s) l
             on conflict do nothing",
        )
        .bind(ids)
        .bind(results)
        .bind(worker)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// How many outcomes there are.
    pub async fn count(&self) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar("select count(*) from tasker_floor.outcomes")
            .fetch_one(&self.pool)
            .await?;
        Ok(n as u64)
    }

    /// Removes the tables.
    pub async fn remove(self) -> Result<(), StoreError> {
        sqlx::query("drop schema tasker_floor cascade").execute(&self.pool).await?;
        Ok(())
    }
}
