//! Streams and durable consumers.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{self, AckPolicy, pull};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tasker_config::Streams;
use tasker_messages::{Namespace, Queue, subject};
use time::OffsetDateTime;

use crate::{Bus, BusError};

/// Which incarnation of the stream of work items exists, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEpoch {
    /// When the stream was created, by the server's clock. Another time is another stream.
    pub created_unix_nanos: i64,
    /// The highest sequence so far.
    pub last_sequence: u64,
}

/// How long a queue without a share is held back unless somebody says so again: should nobody be left
/// who shares, it goes on by itself.
pub(crate) const PAUSE: Duration = Duration::from_secs(60);

/// How long a stream that has a consumer is taken to have the right one: the server writes a consumer to disk
/// whenever it is created, also if it exists. Another consumer beside it is rare: a work queue allows those of
/// streams that copy it, and one that somebody creates while the right one is missing.
const DURABLES_ARE_TRUSTED: Duration = Duration::from_secs(30);

/// How soon a queue goes on that was held back.
const MOMENTS: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(500)];

/// When the server answered, by its own clock.
#[derive(Deserialize)]
struct ServerTime {
    #[serde(with = "time::serde::rfc3339")]
    ts: OffsetDateTime,
}

pub(crate) const STREAMS: [(&str, &str); 3] = [
    (subject::WORK_STREAM, subject::WORK_SUBJECTS),
    (subject::CONTROL_STREAM, subject::CONTROL_SUBJECTS),
    (subject::SUBMIT_STREAM, subject::SUBMIT_SUBJECTS),
];

/// What JetStream answers about something that does not exist.
const NOT_FOUND: usize = 404;

impl Bus {
    /// Creates the three streams and the durables of the control and submit streams where they are
    /// missing, and adapts limits that differ from the settings. Any number of processes may do
    /// this at the same time, and again and again: what is there is not written again each time.
    ///
    /// # Errors
    /// If JetStream refuses or does not answer, or a stream has another retention.
    pub async fn ensure_streams(&self, settings: &Streams) -> Result<StreamEpoch, BusError> {
        let (mut work, mut all_have_consumers) = (None, true);
        for (name, subjects) in STREAMS {
            let info = self.ensure_stream(stream_config(name, subjects, settings)).await?;
            if name == subject::WORK_STREAM {
                work = Some(epoch_of(&info));
            } else {
                all_have_consumers &= info.state.consumer_count > 0;
            }
        }
        if self.server_unix_nanos(Instant::now()).is_none() {
            // Streams that were just made do not tell the time.
            self.stream_epoch().await?;
        }
        let ensured = *self.inner.durables_ensured.borrow();
        if !all_have_consumers || ensured.is_none_or(|at| at.elapsed() >= DURABLES_ARE_TRUSTED) {
            self.ensure_shared_durables(settings).await?;
            self.inner.durables_ensured.send_replace(Some(Instant::now()));
        }
        work.ok_or_else(|| BusError::jetstream("find the stream of work items", "not in the list"))
    }

    /// Creates the durables of the control and submit streams.
    async fn ensure_shared_durables(&self, settings: &Streams) -> Result<(), BusError> {
        let control = durable_config(
            subject::BATCH_DURABLE.to_owned(),
            subject::CONTROL_SUBJECTS.to_owned(),
            settings,
        );
        self.ensure_durable(subject::CONTROL_STREAM, control).await?;
        let submit = durable_config(
            subject::SUBMIT_DURABLE.to_owned(),
            subject::SUBMIT_SUBJECTS.to_owned(),
            settings,
        );
        self.ensure_durable(subject::SUBMIT_STREAM, submit).await.map(|_| ())
    }

    /// Which incarnation of the stream of work items exists; `None` if there is none.
    ///
    /// # Errors
    /// If JetStream does not answer.
    pub async fn stream_epoch(&self) -> Result<Option<StreamEpoch>, BusError> {
        let info = self.timed::<Info>(format!("STREAM.INFO.{}", subject::WORK_STREAM)).await?;
        Ok(info.map(|(_, info)| epoch_of(&info)))
    }

    /// Creates the durable consumer of one queue if it is missing. `max_running` is how many of the
    /// queue's messages may be delivered and not acknowledged at a time, if that is less than the
    /// settings say; a durable that exists is adapted, and goes on if it was held back.
    ///
    /// # Errors
    /// If JetStream refuses or does not answer; also if the stream does not exist.
    pub async fn ensure_work_durable(
        &self,
        namespace: &Namespace,
        queue: &Queue,
        max_running: Option<u32>,
        settings: &Streams,
    ) -> Result<(), BusError> {
        let mut config = durable_config(
            subject::work_durable(namespace, queue),
            subject::work(namespace, queue),
            settings,
        );
        config.max_ack_pending = i64::from(most_unacked(max_running, settings));
        let durable = config.durable_name.clone().unwrap_or_default();
        let info = self.ensure_durable(subject::WORK_STREAM, config).await?;
        if info.paused { self.resume(&durable).await } else { Ok(()) }
    }

    /// Creates the durable consumer of a queue that shares a limit with others, if it is missing: without
    /// a share, so that it delivers nothing before it is given one. One that exists stays as it is.
    ///
    /// # Errors
    /// If JetStream refuses or does not answer; also if the stream does not exist.
    pub async fn ensure_sharing_durable(
        &self,
        namespace: &Namespace,
        queue: &Queue,
        settings: &Streams,
    ) -> Result<(), BusError> {
        if self.consumer_load(namespace, queue).await?.is_some() {
            return Ok(());
        }
        let durable = subject::work_durable(namespace, queue);
        let mut config = durable_config(durable, subject::work(namespace, queue), settings);
        config.max_ack_pending = 1;
        // By the clock of this machine: where that is far behind, one step may run before it is its turn.
        config.pause_until = Some(OffsetDateTime::now_utc() + PAUSE);
        self.ensure_durable(subject::WORK_STREAM, config).await.map(|_| ())
    }

    /// Sets how many of a queue's messages may be delivered and not acknowledged at a time; without a
    /// share it is held back for a minute.
    ///
    /// # Errors
    /// If JetStream refuses or does not answer.
    pub async fn give_share(
        &self,
        namespace: &Namespace,
        queue: &Queue,
        share: u32,
        settings: &Streams,
    ) -> Result<(), BusError> {
        if share > 0 {
            return self.ensure_work_durable(namespace, queue, Some(share), settings).await;
        }
        let durable = subject::work_durable(namespace, queue);
        self.pause(&durable, PAUSE).await?;
        // Should it go on by itself, then with as little as there is.
        let mut config = durable_config(durable, subject::work(namespace, queue), settings);
        config.max_ack_pending = 1;
        self.ensure_durable(subject::WORK_STREAM, config).await.map(|_| ())
    }

    /// Lets a durable go on: in a moment. When a pause runs out the server looks for what waits; when one
    /// is ended by request it does not, before somebody pulls or publishes.
    async fn resume(&self, durable: &str) -> Result<(), BusError> {
        for moment in MOMENTS {
            if self.pause(durable, moment).await? {
                return Ok(());
            }
            // The request took longer than that, so that there was nothing left to run out.
        }
        Ok(())
    }

    /// Holds a durable back for a while, by the server's clock. `false` if that was over when it came to
    /// it, or the durable is gone.
    async fn pause(&self, durable: &str, time: Duration) -> Result<bool, BusError> {
        let api = format!("CONSUMER.INFO.{}.{durable}", subject::WORK_STREAM);
        let Some(server) = self.info::<ServerTime>(api).await? else { return Ok(false) };
        let action = || format!("hold back durable {durable}");
        let stream = self.inner.jetstream.get_stream_no_info(subject::WORK_STREAM).await;
        let stream = stream.map_err(|e| BusError::jetstream(action(), e))?;
        let held = stream.pause_consumer(durable, server.ts + time).await;
        held.map(|held| held.paused).map_err(|e| BusError::jetstream(action(), e))
    }

    /// Creates a stream of its own with one durable consumer, configured like the stream of work
    /// items: for measurements and checks that must not touch the real one.
    ///
    /// # Errors
    /// If JetStream refuses or does not answer.
    pub async fn ensure_private_stream(
        &self,
        stream: &str,
        subject: &str,
        durable: &str,
        settings: &Streams,
    ) -> Result<(), BusError> {
        self.ensure_stream(stream_config(stream, subject, settings)).await?;
        let config = durable_config(durable.to_owned(), subject.to_owned(), settings);
        self.ensure_durable(stream, config).await.map(|_| ())
    }

    /// Deletes a stream of [`Self::ensure_private_stream`]. One that does not exist is no error.
    ///
    /// # Errors
    /// If JetStream does not answer.
    pub async fn delete_private_stream(&self, stream: &str) -> Result<(), BusError> {
        let _status: Option<serde_json::Value> =
            self.ask_once(format!("STREAM.DELETE.{stream}")).await?;
        Ok(())
    }

    /// Deletes the durable consumer of one queue; workers that pull from it start anew when it is
    /// created again, and what is unacknowledged is delivered again as if for the first time.
    ///
    /// # Errors
    /// If JetStream does not answer. A durable that does not exist is no error.
    pub async fn delete_work_durable(
        &self,
        namespace: &Namespace,
        queue: &Queue,
    ) -> Result<(), BusError> {
        let durable = subject::work_durable(namespace, queue);
        let api = format!("CONSUMER.DELETE.{}.{durable}", subject::WORK_STREAM);
        let _status: Option<serde_json::Value> = self.ask_once(api).await?;
        Ok(())
    }

    async fn ensure_stream(&self, config: Config) -> Result<Info, BusError> {
        let wants_batches = config.allow_batch_publish;
        let info = self.ensure_stream_as(config).await?;
        if wants_batches {
            self.inner.publishers.set_takes_batches(info.config.allow_batch_publish);
        }
        Ok(info)
    }

    async fn ensure_stream_as(&self, config: Config) -> Result<Info, BusError> {
        let name = config.name.clone();
        let Some((_, found)) = self.timed::<Info>(format!("STREAM.INFO.{name}")).await? else {
            tracing::info!(stream = name, "creating stream");
            let create = || self.inner.jetstream.create_stream(config.clone());
            let created = self.ask_each_connection(create).await;
            let created =
                created.map_err(|e| BusError::jetstream(format!("create stream {name}"), e))?;
            return Ok(created.cached_info().clone());
        };
        if found.config.retention != RetentionPolicy::WorkQueue {
            let stream = STREAMS.iter().map(|(name, _)| *name).find(|known| *known == name);
            return Err(BusError::ForeignStream {
                stream: stream.unwrap_or("of Tasker"),
                found: format!("{:?}", found.config.retention),
            });
        }
        if found.config.max_bytes == config.max_bytes
            && found.config.duplicate_window == config.duplicate_window
            && found.config.allow_batch_publish == config.allow_batch_publish
        {
            return Ok(found);
        }
        tracing::info!(stream = name, "adapting the limits of a stream to the settings");
        let adapted = Config {
            max_bytes: config.max_bytes,
            duplicate_window: config.duplicate_window,
            allow_batch_publish: config.allow_batch_publish,
            ..found.config
        };
        let update = || self.inner.jetstream.update_stream(adapted.clone());
        let updated = self.ask_each_connection(update).await;
        updated.map_err(|e| BusError::jetstream(format!("update stream {name}"), e))
    }

    async fn ensure_durable(
        &self,
        stream: &str,
        config: pull::Config,
    ) -> Result<consumer::Info, BusError> {
        let durable = config.durable_name.clone().unwrap_or_default();
        let created =
            self.inner.jetstream.create_consumer_on_stream(config, stream.to_owned()).await;
        created.map(|consumer| consumer.cached_info().clone()).map_err(|e| {
            BusError::jetstream(format!("create durable {durable} of stream {stream}"), e)
        })
    }

    /// Asks the JetStream API for something and the time by its clock, which is noted.
    pub(crate) async fn timed<T: DeserializeOwned>(
        &self,
        api: String,
    ) -> Result<Option<(OffsetDateTime, T)>, BusError> {
        let Some(answer) = self.info::<serde_json::Value>(api.clone()).await? else {
            return Ok(None);
        };
        let malformed = |e| BusError::jetstream(format!("read the answer to {api}"), e);
        let ServerTime { ts } = ServerTime::deserialize(&answer).map_err(malformed)?;
        self.inner.clock.note(unix_nanos(ts));
        Ok(Some((ts, serde_json::from_value(answer).map_err(malformed)?)))
    }

    /// Asks the JetStream API, on each connection; `None` if the thing does not exist.
    pub(crate) async fn info<T: DeserializeOwned>(
        &self,
        api: String,
    ) -> Result<Option<T>, BusError> {
        self.ask_each_connection(|| self.ask_once(api.clone())).await
    }

    /// Asks the JetStream API for something, or to delete it; `None` if it does not exist.
    async fn ask_once<T: DeserializeOwned>(&self, api: String) -> Result<Option<T>, BusError> {
        match self.inner.jetstream.request(api.clone(), &serde_json::json!({})).await {
            Ok(Response::Ok(info)) => Ok(Some(info)),
            Ok(Response::Err { error }) if error.code() == NOT_FOUND => Ok(None),
            Ok(Response::Err { error }) => {
                Err(BusError::jetstream(format!("ask for {api}"), error))
            }
            Err(error) => Err(BusError::jetstream(format!("ask for {api}"), error)),
        }
    }
}

pub(crate) fn unix_nanos(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

fn epoch_of(info: &Info) -> StreamEpoch {
    StreamEpoch {
        created_unix_nanos: unix_nanos(info.created),
        last_sequence: info.state.last_sequence,
    }
}

/// Work items and commands are made again from rows when they are lost, so they are written to disk
/// in the background; what is submitted without waiting exists nowhere else.
///
/// One limit only: with several, `discard: new` has acknowledged messages that it did not store
/// (nats-server#4771).
fn stream_config(name: &str, subjects: &str, settings: &Streams) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_bytes: i64::try_from(settings.max_bytes).unwrap_or(i64::MAX),
        max_messages: -1,
        max_messages_per_subject: -1,
        duplicate_window: settings.duplicate_window(),
        // Of the others messages are published one by one.
        allow_batch_publish: !matches!(name, subject::CONTROL_STREAM | subject::SUBMIT_STREAM),
        persist_mode: (name != subject::SUBMIT_STREAM).then_some(PersistenceMode::Async),
        ..Config::default()
    }
}

/// No `max_deliver`: such messages would stay for ever (nats-server#5564); Postgres counts tries.
/// No `backoff`: it would override `ack_wait`.
fn durable_config(durable: String, filter: String, settings: &Streams) -> pull::Config {
    pull::Config {
        durable_name: Some(durable),
        filter_subject: filter,
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.ack_wait(),
        max_ack_pending: i64::from(settings.max_ack_pending),
        max_waiting: i64::from(settings.max_waiting_pulls),
        max_deliver: -1,
        ..pull::Config::default()
    }
}

/// How many deliveries of a queue may be unacknowledged that has this limit.
fn most_unacked(max_running: Option<u32>, settings: &Streams) -> u32 {
    max_running.map_or(settings.max_ack_pending, |limit| limit.min(settings.max_ack_pending))
}
