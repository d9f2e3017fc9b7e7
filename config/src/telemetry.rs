use tracing_subscriber::EnvFilter;

use crate::{ConfigError, Telemetry};

/// Starts logging to standard error. Only binaries call this; a library that is embedded in
/// another program leaves logging to it.
///
/// # Errors
/// If the filter or the format is invalid. A second call does nothing.
pub fn init_telemetry(settings: &Telemetry) -> Result<(), ConfigError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => filter,
        _ => settings.log.clone(),
    };
    let filter =
        EnvFilter::try_new(&filter).map_err(|e| invalid("telemetry.log", e.to_string()))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // The only error is that a subscriber is already there, which is what an embedding host wants.
    let _already_set = match settings.format.as_str() {
        "text" => builder.with_ansi(false).try_init(),
        "json" => builder.json().try_init(),
        other => {
            return Err(invalid(
                "telemetry.format",
                format!("`{other}` is neither `text` nor `json`"),
            ));
        }
    };
    Ok(())
}

fn invalid(key: &str, message: String) -> ConfigError {
    ConfigError::Value { origin: "telemetry".into(), key: key.into(), message }
}
