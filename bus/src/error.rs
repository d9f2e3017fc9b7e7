use async_nats::client::{PublishError as PublishFailure, PublishErrorKind};
use tasker_messages::Refusal;

/// The cause of an error as the NATS client tells it.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the bus could not do something.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The connection could not be set up: the address or an option is wrong. An unreachable
    /// server is no error; connecting goes on in the background.
    #[error("cannot connect to NATS: {source}")]
    Connect {
        /// Why.
        source: Cause,
    },
    /// A setting is wrong, or what it names.
    #[error("{key}: {message}")]
    Setting {
        /// Its key.
        key: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The client is closed, or refuses the message (subject, size).
    #[error("cannot send on `{subject}`: {source}")]
    Send {
        /// Where to.
        subject: String,
        /// Why.
        source: Cause,
    },
    /// The message is over the server's limit (`max_payload`).
    #[error("a message for `{subject}` is over the server's limit: {source}")]
    TooLarge {
        /// Where to.
        subject: String,
        /// How large it is.
        source: Cause,
    },
    /// A message could not be written as JSON.
    #[error("cannot encode a message for `{subject}`: {source}")]
    Encode {
        /// Where to.
        subject: String,
        /// Why.
        source: serde_json::Error,
    },
    /// JetStream refused, or did not answer in time.
    #[error("cannot {action}: {source}")]
    JetStream {
        /// What was to be done.
        action: String,
        /// Why.
        source: Cause,
    },
    /// A stream of this name exists with another retention, so it is not Tasker's.
    #[error(
        "stream {stream} has {found} retention instead of work-queue retention; it belongs to \
         something else or was changed by hand: remove it or use another NATS account"
    )]
    ForeignStream {
        /// Its name.
        stream: &'static str,
        /// Its retention.
        found: String,
    },
    /// The connection was lost, and with it perhaps what was on its way.
    #[error("the connection to nats-server was lost before an answer came")]
    ConnectionLost,
    /// The server did not take everything in time.
    #[error("nats-server did not answer within {0:?}")]
    TimedOut(std::time::Duration),
}

impl BusError {
    pub(crate) fn setting(key: &'static str, message: impl Into<String>) -> Self {
        Self::Setting { key, message: message.into() }
    }

    pub(crate) fn send(subject: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Send { subject: subject.into(), source: source.into() }
    }

    pub(crate) fn publish(subject: impl Into<String>, error: PublishFailure) -> Self {
        let (subject, too_large) =
            (subject.into(), error.kind() == PublishErrorKind::MaxPayloadExceeded);
        let source = error.into();
        if too_large { Self::TooLarge { subject, source } } else { Self::Send { subject, source } }
    }

    pub(crate) fn jetstream(action: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::JetStream { action: action.into(), source: source.into() }
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens.
    #[error("nobody answers on `{subject}`")]
    NoResponders {
        /// Where to.
        subject: String,
    },
    /// No answer in time. The request may have been done.
    #[error("no answer on `{subject}` within {timeout:?}")]
    TimedOut {
        /// Where to.
        subject: String,
        /// How long was waited.
        timeout: std::time::Duration,
    },
    /// The answer is a refusal.
    #[error(transparent)]
    Refused(Refusal),
    /// The answer is not what was asked for.
    #[error("malformed answer on `{subject}`: {source}")]
    Malformed {
        /// Where to.
        subject: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The request could not be sent.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl RequestError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            RequestError::NoResponders { .. } | RequestError::TimedOut { .. } => true,
            RequestError::Refused(refusal) => refusal.retryable,
            RequestError::Malformed { .. } => false,
            RequestError::Bus(error) => {
                !matches!(error, BusError::Encode { .. } | BusError::TooLarge { .. })
            }
        }
    }
}

/// Why a JetStream publish is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No stream takes this subject.
    #[error("no stream takes the subject")]
    NoStream,
    /// The stream did not take the message, e.g. because it is full.
    #[error("JetStream refused the message: {description} (error {code})")]
    Refused {
        /// JetStream's error code.
        code: u64,
        /// JetStream's words.
        description: String,
    },
    /// No acknowledgement came, also not for a second publish under the same message id. The
    /// message may or may not be stored.
    #[error("no acknowledgement came; the message may or may not be stored")]
    Unknown,
    /// The message could not be sent at all.
    #[error(transparent)]
    Bus(#[from] BusError),
}
