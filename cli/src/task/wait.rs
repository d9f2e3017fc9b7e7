use std::time::Duration;

use tasker_messages::{TaskId, TaskState, TaskView};
use tokio::time::{Instant, timeout_at};

use super::show;
use crate::client::{Client, ClientError, Document};
use crate::exit::{Code, Exit};
use crate::output::{self, Format};

/// The length of one long poll; the server allows more.
const POLL: Duration = Duration::from_secs(20);

/// The task as it is when it ends.
///
/// # Errors
/// [`Code::TimedOut`] if that is not before the deadline.
pub(super) async fn until_ended(
    client: &Client,
    id: TaskId,
    deadline: Option<Instant>,
) -> anyhow::Result<Document<TaskView>> {
    let Some(deadline) = deadline else {
        return Ok(poll(client, id, None).await?);
    };
    match timeout_at(deadline, poll(client, id, Some(deadline))).await {
        Ok(end) => Ok(end?),
        Err(_) => {
            let message = format!("task {id} has not ended within --timeout; it goes on");
            Err(Exit::new(Code::TimedOut, message).into())
        }
    }
}

async fn poll(
    client: &Client,
    id: TaskId,
    deadline: Option<Instant>,
) -> Result<Document<TaskView>, ClientError> {
    loop {
        let left = deadline.map_or(POLL, |d| d.saturating_duration_since(Instant::now()));
        // Whole seconds, and never 0: that would be no poll but a busy loop.
        let wait = Duration::from_secs(left.min(POLL).as_secs() + 1);
        let task = client.task(id, Some(wait)).await?;
        if task.value.state.is_terminal() {
            return Ok(task);
        }
    }
}

/// Prints a task that has ended; only a complete one is a success.
pub(super) fn conclude(task: Document<TaskView>, format: Format) -> anyhow::Result<()> {
    let state = task.value.state;
    output::print(&show::task(task, format))?;
    match state {
        TaskState::Complete => Ok(()),
        _ => Err(Exit::quietly(Code::Failed).into()),
    }
}
