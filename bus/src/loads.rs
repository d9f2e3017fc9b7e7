//! How full streams are, and how busy consumers.

use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::{Info, RetentionPolicy};
use futures::TryStreamExt;
use tasker_messages::{Namespace, Queue, subject};

use crate::streams::{PAUSE, STREAMS, unix_nanos};
use crate::{Bus, BusError};

/// How full a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLoad {
    /// Messages in it.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many there is room for; `None` is no limit.
    pub max_bytes: Option<u64>,
    /// Whether it is the kind of stream that Tasker makes.
    pub is_work_queue: bool,
}

/// How busy the consumer of one queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerLoad {
    /// When the consumer was made, by the server's clock. Another time is another consumer, which knows
    /// nothing of what the one before has delivered.
    pub created_unix_nanos: i64,
    /// How long ago that was.
    pub age: Duration,
    /// Messages that have not been delivered yet.
    pub pending: u64,
    /// Deliveries that are not acknowledged.
    pub ack_pending: u64,
    /// All messages of the consumer up to this stream sequence are acknowledged.
    pub ack_floor_stream_seq: u64,
    /// The highest stream sequence that was delivered.
    pub delivered_stream_seq: u64,
    /// How many deliveries may be unacknowledged at a time.
    pub max_ack_pending: u32,
    /// For how long it delivers nothing yet, if it is held back.
    pub paused_for: Option<Duration>,
}

impl ConsumerLoad {
    /// Whether it delivers nothing, for long enough to rely on it.
    pub fn is_paused(&self) -> bool {
        self.paused_for.is_some_and(|left| left > PAUSE / 6)
    }
}

impl Bus {
    /// The queues that have a durable consumer.
    ///
    /// # Errors
    /// If JetStream does not answer. Without the stream there are none.
    pub async fn work_durables(&self) -> Result<Vec<(Namespace, Queue)>, BusError> {
        let action = "list the durables of work";
        let found: Option<Info> =
            self.info(format!("STREAM.INFO.{}", subject::WORK_STREAM)).await?;
        if found.is_none() {
            return Ok(Vec::new());
        }
        let stream = self.inner.jetstream.get_stream_no_info(subject::WORK_STREAM).await;
        let stream = stream.map_err(|e| BusError::jetstream(action, e))?;
        let names: Vec<String> = stream
            .consumer_names()
            .try_collect()
            .await
            .map_err(|e| BusError::jetstream(action, e))?;
        Ok(names.iter().filter_map(|name| subject::queue_of_durable(name)).collect())
    }

    /// How busy the consumer of one queue is; `None` if the durable or its stream is missing.
    ///
    /// # Errors
    /// If JetStream does not answer.
    pub async fn consumer_load(
        &self,
        namespace: &Namespace,
        queue: &Queue,
    ) -> Result<Option<ConsumerLoad>, BusError> {
        let durable = subject::work_durable(namespace, queue);
        let api = format!("CONSUMER.INFO.{}.{durable}", subject::WORK_STREAM);
        let Some((now, info)) = self.timed::<consumer::Info>(api).await? else { return Ok(None) };
        Ok(Some(ConsumerLoad {
            created_unix_nanos: unix_nanos(info.created),
            age: (now - info.created).try_into().unwrap_or_default(),
            pending: info.num_pending,
            ack_pending: info.num_ack_pending as u64,
            ack_floor_stream_seq: info.ack_floor.stream_sequence,
            delivered_stream_seq: info.delivered.stream_sequence,
            // Negative is no limit, which no durable of ours has.
            max_ack_pending: u32::try_from(info.config.max_ack_pending).unwrap_or(u32::MAX),
            paused_for: info.pause_remaining.filter(|_| info.paused),
        }))
    }

    /// How full the streams are; `None` for one that does not exist.
    ///
    /// # Errors
    /// If JetStream does not answer.
    pub async fn stream_loads(&self) -> Result<Vec<(&'static str, Option<StreamLoad>)>, BusError> {
        let mut loads = Vec::with_capacity(STREAMS.len());
        for (name, _) in STREAMS {
            let info = self.info::<Info>(format!("STREAM.INFO.{name}")).await?;
            let load = info.map(|info| StreamLoad {
                messages: info.state.messages,
                bytes: info.state.bytes,
                max_bytes: u64::try_from(info.config.max_bytes).ok(),
                is_work_queue: info.config.retention == RetentionPolicy::WorkQueue,
            });
            loads.push((name, load));
        }
        Ok(loads)
    }
}
