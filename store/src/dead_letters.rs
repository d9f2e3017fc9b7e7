//! Dead letters: what could not be worked off, with the reason, until somebody decides.

use sqlx::PgConnection;
use tasker_messages::{
    DeadLetter, DeadLetterGroup, DeadLetterGroups, DeadLetterKind, DeadLetterList, DeadLetterView,
    Namespace, Purge, Refusal, Scope, StepId, TaskId, TaskRequest,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::pool::commit;
use crate::views::{parse, rfc3339};
use crate::{Store, StoreError};

/// One row of `queries/views/dead_letters.sql`.
struct Row {
    id: i64,
    kind: String,
    namespace: String,
    fingerprint: Option<String>,
    code: Option<String>,
    message: Option<String>,
    created_at: OffsetDateTime,
    redriven_at: Option<OffsetDateTime>,
    redriven_task: Option<Uuid>,
    task_id: Option<Uuid>,
    step_id: Option<Uuid>,
    attempt: Option<i32>,
    subject: Option<String>,
}

impl Row {
    fn letter(self) -> Result<DeadLetter, StoreError> {
        Ok(DeadLetter {
            id: self.id,
            kind: parse("kind of dead letter", &self.kind)?,
            namespace: self.namespace,
            code: self.code.unwrap_or_default(),
            message: self.message.unwrap_or_default(),
            fingerprint: self.fingerprint.unwrap_or_default(),
            created_at: rfc3339(self.created_at),
            redriven_at: self.redriven_at.map(rfc3339),
            redriven_task: self.redriven_task.map(TaskId::from_uuid),
            task_id: self.task_id.map(TaskId::from_uuid),
            step_id: self.step_id.map(StepId::from_uuid),
            attempt: self.attempt.map(|n| n as u32),
            subject: self.subject,
        })
    }
}

/// A message that was carried and is refused.
#[derive(Debug, Clone, Copy)]
pub struct RefusedMessage<'a> {
    /// Its subject.
    pub subject: &'a str,
    /// What it holds.
    pub payload: &'a [u8],
    /// The idempotency key beside the document.
    pub key: Option<&'a str>,
    /// Where it stands in its stream.
    pub place: &'a str,
}

/// What is needed to submit a refused message.
#[derive(Debug, Clone, Default)]
pub struct KeptMessage {
    /// What it holds.
    pub payload: Vec<u8>,
    /// The idempotency key beside the document.
    pub key: Option<String>,
    /// Where it stood in its stream; letters of earlier builds do not say.
    pub place: Option<String>,
}

/// Which dead letters are meant; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Those of these namespaces.
    pub scope: Scope,
    /// This one.
    pub id: Option<i64>,
    /// Those of this namespace, which of a refused message need not be a valid one.
    pub namespace: Option<String>,
    /// Those of this kind.
    pub kind: Option<DeadLetterKind>,
    /// Those with this fingerprint.
    pub fingerprint: Option<String>,
    /// Those that were redriven, or those that were not.
    pub redriven: Option<bool>,
}

/// A text without what Postgres cannot store.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl Store {
    /// Keeps a message that was carried but cannot be accepted; the namespace is that of its subject
    /// and need not be a valid one.
    /// The same message is kept once, however often it comes.
    pub async fn keep_dead_letter(
        &self,
        namespace: &str,
        message: &RefusedMessage<'_>,
        refusal: &Refusal,
    ) -> Result<(), StoreError> {
        let error = serde_json::to_value(refusal).map_err(|e| StoreError::stored("error", e))?;
        // Neither a subject nor a header need be a text that can be stored. A message that is refused
        // for that must not come back for ever because it cannot be kept either.
        let [namespace, subject] = [namespace, message.subject].map(storable);
        let key = message.key.map(storable);
        sqlx::query!(
            "insert into tasker.dead_letters
                 (namespace, subject, payload, error, idempotency_key, place)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (place) do nothing",
            namespace,
            subject,
            message.payload,
            error,
            key,
            message.place,
        )
        .execute(&self.hot)
        .await?;
        Ok(())
    }

    /// A page of dead letters, newest first.
    pub async fn list_dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<DeadLetterList, StoreError> {
        let names = filter.scope.names();
        let rows = sqlx::query_file_as!(
            Row,
            "queries/views/dead_letters.sql",
            filter.id,
            filter.namespace.as_deref(),
            filter.kind.map(DeadLetterKind::as_str),
            filter.fingerprint.as_deref(),
            filter.redriven,
            after,
            i64::from(limit),
            names.as_deref(),
        )
        .fetch_all(&self.api)
        .await?;
        let full = rows.len() as u32 == limit;
        let letters: Vec<DeadLetter> =
            rows.into_iter().map(Row::letter).collect::<Result<_, _>>()?;
        let next = letters.last().filter(|_| full).map(|letter| letter.id);
        Ok(DeadLetterList { letters, next })
    }

    /// Open letters by fingerprint, the largest group first.
    pub async fn group_dead_letters(
        &self,
        scope: &Scope,
        namespace: Option<&str>,
    ) -> Result<DeadLetterGroups, StoreError> {
        let names = scope.names();
        let rows = sqlx::query!(
            r#"select fingerprint as "fingerprint!", count(*) as "count!",
                      min(created_at) as "first_at!", max(id) as "newest!"
               from tasker.dead_letters
               where redriven_at is null and ($1::text is null or namespace = $1)
                 and ($3::text[] is null or namespace = any($3))
               group by fingerprint order by count(*) desc, fingerprint limit $2"#,
            namespace,
            i64::from(DeadLetterGroups::MOST),
            names.as_deref(),
        )
        .fetch_all(&self.api)
        .await?;
        let mut groups = Vec::with_capacity(rows.len());
        for row in rows {
            // Purged since.
            let Some(newest) = self.find_dead_letter(scope, row.newest).await? else { continue };
            groups.push(DeadLetterGroup {
                fingerprint: row.fingerprint,
                count: row.count as u64,
                first_at: rfc3339(row.first_at),
                newest,
            });
        }
        Ok(DeadLetterGroups { groups })
    }

    /// One dead letter, if it is of one of these namespaces.
    pub async fn find_dead_letter(
        &self,
        scope: &Scope,
        id: i64,
    ) -> Result<Option<DeadLetter>, StoreError> {
        let scope = scope.clone();
        let filter = DeadLetterFilter { scope, id: Some(id), ..DeadLetterFilter::default() };
        Ok(self.list_dead_letters(&filter, None, 1).await?.letters.pop())
    }

    /// One dead letter with everything that is known about it.
    pub async fn view_dead_letter(
        &self,
        scope: &Scope,
        id: i64,
    ) -> Result<Option<DeadLetterView>, StoreError> {
        let Some(letter) = self.find_dead_letter(scope, id).await? else { return Ok(None) };
        let row = sqlx::query!("select error, payload from tasker.dead_letters where id = $1", id)
            .fetch_optional(&self.api)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let step = match (letter.task_id, letter.step_id) {
            (Some(task), Some(step)) => self.step_history(task, step).await?,
            _ => None,
        };
        let task = match letter.task_id {
            Some(task) => self.summarize_task(task).await?,
            None => None,
        };
        let payload = row.payload.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Some(DeadLetterView { letter, error: row.error, payload, step, task }))
    }

    /// A refused message, to submit it again.
    pub async fn kept_message(&self, id: i64) -> Result<Option<KeptMessage>, StoreError> {
        let row = sqlx::query!(
            "select payload, idempotency_key, place from tasker.dead_letters where id = $1",
            id
        )
        .fetch_optional(&self.api)
        .await?;
        Ok(row.map(|row| KeptMessage {
            payload: row.payload.unwrap_or_default(),
            key: row.idempotency_key,
            place: row.place,
        }))
    }

    /// What a task was submitted with, to submit it again. `None` if there is no such task.
    pub async fn request_of_task(&self, id: TaskId) -> Result<Option<TaskRequest>, StoreError> {
        let row = sqlx::query!(
            r#"select t.namespace, p.name, p.version, t.context::text as "context!", t.initiator,
                      t.source_system, t.reason, t.tags as "tags!", t.priority, t.correlation_id,
                      t.parent_correlation_id
               from tasker.tasks t join tasker.templates p on p.id = t.template_id
               where t.id = $1"#,
            id.as_uuid()
        )
        .fetch_optional(&self.api)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let stored = |e: serde_json::Error| StoreError::stored("submission", e);
        Ok(Some(TaskRequest {
            name: parse("name", &row.name)?,
            namespace: parse("namespace", &row.namespace)?,
            version: Some(row.version),
            context: serde_json::from_str(&row.context).map_err(stored)?,
            initiator: row.initiator,
            source_system: row.source_system,
            reason: row.reason,
            tags: serde_json::from_value(row.tags).map_err(stored)?,
            priority: row.priority as i8,
            correlation_id: row.correlation_id,
            parent_correlation_id: row.parent_correlation_id,
            idempotency_key: None,
            identity: None,
        }))
    }

    /// Records that a letter was submitted as this task, and who asked for it.
    pub async fn note_redriven(
        &self,
        letter: &DeadLetter,
        task: TaskId,
        principal: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "with redriven as (
                 update tasker.dead_letters set redriven_at = now(), redriven_task = $2
                 where id = $1 and redriven_at is null returning namespace
             )
             insert into tasker.admin_actions (namespace, task_id, action, principal, reason)
             select namespace, $2, 'redrive_dead_letter', $3, $4 from redriven",
            letter.id,
            task.as_uuid(),
            principal,
            reason,
        )
        .execute(&self.api)
        .await?;
        Ok(())
    }

    /// Removes dead letters of these namespaces and records who did it; returns how many.
    pub async fn purge_dead_letters(
        &self,
        scope: &Scope,
        purge: &Purge,
        principal: &str,
    ) -> Result<u64, StoreError> {
        let mut tx = self.api.begin().await?;
        let days = purge.older_than_days.map(|days| i32::try_from(days).unwrap_or(i32::MAX));
        let names = scope.names();
        let removed = sqlx::query!(
            "delete from tasker.dead_letters
             where ($1::bigint[] is null or id = any($1))
               and ($2::text is null or namespace = $2)
               and ($3::text is null or fingerprint = $3)
               and ($4::int is null or created_at < now() - $4 * interval '1 day')
               and ($5::boolean is null or (redriven_at is not null) = $5)
               and ($6::text[] is null or namespace = any($6))",
            purge.ids.as_deref(),
            purge.namespace.as_ref().map(Namespace::as_str),
            purge.fingerprint.as_deref(),
            days,
            purge.redriven,
            names.as_deref(),
        )
        .execute(&mut *tx)
        .await?;
        let removed = removed.rows_affected();
        let meant = match &purge.namespace {
            Some(namespace) => vec![namespace.to_string()],
            None => scope.names().unwrap_or_else(|| vec!["*".to_owned()]),
        };
        sqlx::query!(
            "insert into tasker.admin_actions (namespace, action, principal, reason)
             select n.namespace, 'purge_dead_letters', $2, $3
             from unnest($1::text[]) as n(namespace)",
            &meant,
            principal,
            format!("{removed} letters: {}", purge.reason),
        )
        .execute(&mut *tx)
        .await?;
        commit(tx).await?;
        Ok(removed)
    }
}

/// Closes the letters of members that a repair opens again.
pub(crate) async fn close_letters(
    connection: &mut PgConnection,
    steps: &[Uuid],
) -> Result<(), StoreError> {
    sqlx::query!(
        "update tasker.dead_letters set redriven_at = now()
         where step_id = any($1::uuid[]) and redriven_at is null",
        steps
    )
    .execute(connection)
    .await?;
    Ok(())
}
