use std::path::PathBuf;

/// Why settings could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A source is not valid TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// Which source.
        origin: String,
        /// What and where.
        message: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown setting `{key}`; `tasker config show` lists all settings")]
    UnknownKey {
        /// Which source.
        origin: String,
        /// The key, as `section.key`.
        key: String,
    },
    /// A value that its key does not allow.
    #[error("{origin}: setting `{key}`: {message}")]
    Value {
        /// Which source.
        origin: String,
        /// The key, as `section.key`.
        key: String,
        /// What is wrong.
        message: String,
    },
}
