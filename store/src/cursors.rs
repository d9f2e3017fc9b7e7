//! Cursors that an analyzer appends while it runs: numbered pages, fenced by the attempt.

use tasker_messages::{CursorConfig, Namespace, StepId};

use crate::NewMember;
use crate::pool::{Tx, commit, retry_conflicts};
use crate::{Store, StoreError};

/// The page before the one that is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousPage {
    /// Its number.
    pub page: u32,
    /// Cursors up to its end.
    pub total: u32,
    /// The last `batch_id`.
    pub last_batch_id: String,
    /// The last end, if it is an integer.
    pub last_end: Option<i64>,
}

/// A page that is to be stored.
#[derive(Debug, Clone)]
pub struct NewPage {
    /// The analyzer's step.
    pub step_id: StepId,
    /// The attempt that appends it.
    pub attempt: u32,
    /// Its number.
    pub page: u32,
    /// The cursors as a JSON list.
    pub cursors_json: String,
    /// How many there are.
    pub count: u32,
    /// The last `batch_id`.
    pub last_batch_id: String,
    /// The last end, if it is an integer.
    pub last_end: Option<i64>,
}

impl Store {
    /// The last page that this attempt has stored before the given one.
    pub async fn previous_page(
        &self,
        namespace: &Namespace,
        step: StepId,
        attempt: u32,
        before: u32,
    ) -> Result<Option<PreviousPage>, StoreError> {
        let row = sqlx::query!(
            // What the last page says is told to whoever appends one that does not follow it.
            "select page, total, last_batch_id, last_end from tasker.cursor_pages
             where step_id = $1 and attempt = $2 and page < $3
               and exists (select from tasker.steps where id = $1 and namespace = $4)
             order by page desc limit 1",
            step.as_uuid(),
            attempt as i32,
            before as i32,
            namespace.as_str(),
        )
        .fetch_optional(&self.hot)
        .await?;
        Ok(row.map(|row| PreviousPage {
            page: row.page as u32,
            total: row.total as u32,
            last_batch_id: row.last_batch_id,
            last_end: row.last_end,
        }))
    }

    /// Stores a page unless it is stored already. `false` if the attempt is no longer current.
    pub async fn append_page(
        &self,
        namespace: &Namespace,
        page: &NewPage,
    ) -> Result<bool, StoreError> {
        retry_conflicts(|| async {
            let mut tx = self.hot.begin().await?;
            let current = sqlx::query_scalar!(
                "select attempt = $3 and kind = 'batchable'
                        and not exists (select from tasker.outcomes o where o.step_id = s.id)
                 from tasker.steps s
                 where id = $1 and namespace = $2 for share of s",
                page.step_id.as_uuid(),
                namespace.as_str(),
                page.attempt as i32,
            )
            .fetch_optional(&mut *tx)
            .await?;
            if current.flatten() != Some(true) {
                return Ok(false);
            }
            sqlx::query!(
                "insert into tasker.cursor_pages
                     (step_id, attempt, page, cursors, count, total, last_batch_id, last_end)
                 values ($1, $2, $3, $4::text::json, $5,
                         $5 + coalesce((select total from tasker.cursor_pages
                                        where step_id = $1 and attempt = $2 and page = $3 - 1), 0),
                         $6, $7)
                 on conflict do nothing",
                page.step_id.as_uuid(),
                page.attempt as i32,
                page.page as i32,
                page.cursors_json,
                page.count as i32,
                page.last_batch_id,
                page.last_end,
            )
            .execute(&mut *tx)
            .await?;
            commit(tx).await?;
            Ok(true)
        })
        .await
    }

    /// How many cursors each of these attempts has appended in gap-free pages; attempts that
    /// appended none are left out.
    pub async fn count_appended(
        &self,
        attempts: &[(StepId, u32)],
    ) -> Result<Vec<(StepId, u32)>, StoreError> {
        if attempts.is_empty() {
            return Ok(Vec::new());
        }
        let (ids, numbers): (Vec<_>, Vec<_>) =
            attempts.iter().map(|(id, attempt)| (id.as_uuid(), *attempt as i32)).unzip();
        let rows = sqlx::query!(
            r#"select p.step_id, max(p.total) as "total!"
               from unnest($1::uuid[], $2::int[]) as a(step_id, attempt)
               join tasker.cursor_pages p on p.step_id = a.step_id and p.attempt = a.attempt
               group by p.step_id
               having count(*) = max(p.page) + 1"#,
            &ids,
            &numbers,
        )
        .fetch_all(&self.hot)
        .await?;
        Ok(rows.into_iter().map(|r| (StepId::from_uuid(r.step_id), r.total as u32)).collect())
    }
}

/// Members of the pages that begin at `from`, up to about `limit` of them.
pub(crate) async fn read_pages(
    tx: &mut Tx,
    step_id: StepId,
    attempt: u32,
    worker_template: &str,
    (from, limit): (u32, u32),
) -> Result<Vec<NewMember>, StoreError> {
    let pages = sqlx::query_scalar!(
        r#"select cursors::text as "cursors!" from tasker.cursor_pages
           where step_id = $1 and attempt = $2 and total - count >= $3
             and (total <= $3 + $4 or total - count = $3)
           order by page"#,
        step_id.as_uuid(),
        attempt as i32,
        from as i32,
        limit as i32,
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut members = Vec::new();
    for page in pages {
        let cursors: Vec<&serde_json::value::RawValue> =
            serde_json::from_str(&page).map_err(|e| StoreError::stored("cursor page", e))?;
        for cursor in cursors {
            let config: CursorConfig =
                serde_json::from_str(cursor.get()).map_err(|e| StoreError::stored("cursor", e))?;
            members.push(NewMember {
                name: tasker_messages::cursor::member_name(worker_template, &config.batch_id),
                cursor_json: cursor.get().to_owned(),
            });
        }
    }
    Ok(members)
}
