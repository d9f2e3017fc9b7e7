//! Rows of batch members, inserted by one statement of arrays. COPY is no faster with chunks of thousands
//! (docs/performance.md), and makes each chunk wait: it is sent in two writes, and the second one waits
//! until the first is acknowledged.

use sqlx::PgConnection;
use tasker_messages::{BatchId, Namespace, TaskId};
use uuid::Uuid;

use crate::NewMember;
use crate::StoreError;

/// Members that are to be written, by column.
#[derive(Default)]
pub(crate) struct MemberRows<'a> {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) tasks: Vec<Uuid>,
    pub(crate) namespaces: Vec<&'a str>,
    pub(crate) batches: Vec<Uuid>,
    pub(crate) names: Vec<&'a str>,
    pub(crate) cursors: Vec<&'a str>,
}

impl<'a> MemberRows<'a> {
    pub(crate) fn push(
        &mut self,
        namespace: &'a Namespace,
        task: TaskId,
        batch: BatchId,
        ordinal: u32,
        member: &'a NewMember,
    ) {
        self.ids.push(batch.member(ordinal).as_uuid());
        self.tasks.push(task.as_uuid());
        self.namespaces.push(namespace.as_str());
        self.batches.push(batch.as_uuid());
        self.names.push(&member.name);
        self.cursors.push(&member.cursor_json);
    }

    pub(crate) async fn insert(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.ids.is_empty() {
            return Ok(());
        }
        sqlx::query_file!(
            "queries/batches/insert_members.sql",
            &self.ids,
            &self.tasks,
            &self.namespaces as &[&str],
            &self.batches,
            &self.names as &[&str],
            &self.cursors as &[&str],
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}
