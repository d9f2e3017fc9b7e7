//! What the streams of commands and of submissions bring.

use std::time::Duration;

use tasker_bus::{Delivery, PullEvent, Puller, ResetReason};
use tasker_messages::{
    IDEMPOTENCY_HEADER, Identity, InvalidName, Namespace, ProcessBatchableStep, Refusal, code, json,
};
use tokio::sync::watch;

use super::requests::request;
use crate::orchestrator::Links;
use crate::orchestrator::batch_processing::{BatchProcessingMessage, Expansion};
use crate::orchestrator::intake::{
    Carried, IntakeMessage, Submission, SubmissionSource, keep_refused,
};
use crate::orchestrator::node::Node;

/// Deliveries of one stream that are held at a time.
const MAX_DELIVERIES: u32 = 512;
/// How long a stream is left alone that does not deliver.
const BACK_OFF: Duration = Duration::from_millis(250);

/// Pulls a stream until the end, with a bounded number of deliveries asked for.
pub(super) async fn pull(
    mut puller: Puller,
    mut ending: watch::Receiver<bool>,
    mut take: impl FnMut(Delivery) + Send,
) {
    while !*ending.borrow() {
        let room = MAX_DELIVERIES - puller.credit().min(MAX_DELIVERIES);
        if room > MAX_DELIVERIES / 2
            && let Err(error) = puller.request(room).await
        {
            tracing::warn!(%error, durable = puller.durable(), "a stream is not pulled");
            tokio::time::sleep(BACK_OFF).await;
            continue;
        }
        let event = tokio::select! {
            event = puller.next() => event,
            _ = ending.changed() => continue,
        };
        match event {
            PullEvent::Message(delivery) => take(delivery),
            PullEvent::CreditReturned(_) | PullEvent::Reset(ResetReason::Reconnected) => {}
            PullEvent::Reset(_) => tokio::time::sleep(BACK_OFF).await,
        }
    }
    puller.close().await;
    while puller.credit() > 0 {
        match puller.next().await {
            PullEvent::Message(delivery) => take(delivery),
            PullEvent::CreditReturned(_) => {}
            PullEvent::Reset(_) => return,
        }
    }
}

/// Acknowledges in passing: the message says nothing that the rows do not say.
fn dismiss(delivery: Delivery) {
    tokio::spawn(async move { delivery.handle.ack().await });
}

pub(super) fn take_command(links: &Links, delivery: Delivery) {
    match json::decode::<ProcessBatchableStep>(&delivery.payload) {
        Ok(command) => {
            let expansion = Expansion { step: command.step, ack: Some(delivery.handle) };
            links.batch_processing.cast(BatchProcessingMessage::Expand(expansion));
        }
        Err(error) => {
            // The rows say what is to be expanded; a message that cannot be read says nothing.
            tracing::error!(%error, sequence = delivery.stream_sequence, "a command cannot be read");
            dismiss(delivery);
        }
    }
}

/// Takes a task that was enqueued without waiting: the idempotency key is the header's, else the
/// message id, else where the message stands in the stream.
pub(super) fn take_enqueued(node: &Node, links: &Links, delivery: Delivery) {
    let subject = delivery.subject().to_owned();
    let ack = delivery.handle.clone();
    let key = delivery
        .header(IDEMPOTENCY_HEADER)
        .or_else(|| delivery.header("Nats-Msg-Id"))
        .map(str::to_owned);
    // Not for a producer who said that it provides one: it forgot.
    let place = format!("enqueued:{}:{}", delivery.published_unix_nanos, delivery.stream_sequence);
    let token = subject.strip_prefix("tasker.enqueue.").unwrap_or_default().to_owned();
    let invalid = |e: InvalidName| Refusal::new(code::INVALID_NAME, e.to_string());
    let accepted = delivery
        .protocol_ok()
        .and_then(|()| Namespace::new(&token).map_err(invalid))
        .and_then(|namespace| request(&namespace, &delivery.payload, key.clone()));
    let payload = delivery.payload.clone();
    let carried = Box::new(Carried { subject, payload, key, place, ack });
    match accepted {
        Ok(mut request) => {
            if request.identity != Some(Identity::CallerProvided) {
                request.idempotency_key.get_or_insert_with(|| carried.place.clone());
            }
            let source = SubmissionSource::Enqueued(carried);
            links.intake.cast(IntakeMessage::Submit(Box::new(Submission { request, source })));
        }
        Err(refusal) => {
            let node = node.clone();
            tokio::spawn(async move { keep_refused(&node, &token, &carried, &refusal).await });
        }
    }
}
