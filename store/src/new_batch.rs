//! Batches that are to be written, and what they are once they are.

use std::sync::Arc;
use std::time::Instant;

use tasker_messages::{BatchId, Namespace, Queue, StepId, TaskId};

use crate::{MemberRow, OpenBatch, StoreError, Written};

/// A batch that is to be written.
#[derive(Debug, Clone)]
pub struct NewBatch {
    /// Made by the caller; not used if the step has a batch already.
    pub id: BatchId,
    /// The task.
    pub task_id: TaskId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The analyzer.
    pub batchable_step: StepId,
    /// The template step of the members.
    pub worker_template: String,
    /// Where the members' work items go.
    pub queue: String,
    /// The task's priority.
    pub priority: i8,
    /// Whether the only member is a placeholder.
    pub is_no_op: bool,
    /// How many members there will be.
    pub expected: u32,
    /// How many of them may fail.
    pub max_failed: u32,
    /// Whether each failed member opens a dead letter.
    pub isolates: bool,
    /// How many of them may be outstanding at a time.
    pub parallelism: Option<u32>,
    /// The members, if they are written at once; empty for a batch that is expanded in chunks.
    pub members: Vec<NewMember>,
}

impl NewBatch {
    /// Once it is written and sealed.
    pub(crate) fn open(&self, known_since: Instant) -> Result<OpenBatch, StoreError> {
        let member = |(ordinal, member): (u32, &NewMember)| MemberRow {
            id: self.id.member(ordinal),
            name: member.name.clone(),
            attempt: 1,
            dispatch_seq: 1,
            cursor: Some(member.cursor_json.clone()),
            claim_required: false,
        };
        let members = (0..).zip(&self.members).map(member).collect();
        Ok(OpenBatch {
            id: self.id,
            task_id: self.task_id,
            namespace: self.namespace.clone(),
            queue: Queue::new(&self.queue).map_err(|e| StoreError::stored("queue", e))?,
            priority: self.priority,
            worker_template: self.worker_template.clone(),
            expected: self.expected,
            published_upto: 0,
            ended: 0,
            parallelism: self.parallelism,
            taken_over: false,
            from_another: false,
            written: Some(Written { members: Arc::new(members), known_since }),
        })
    }
}

/// A member that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// `<template>_<batch_id>`.
    pub name: String,
    /// The `CursorConfig` as JSON text.
    pub cursor_json: String,
}
