use crate::{PROTOCOL_HEADER, PROTOCOL_VERSION, Refusal, code};

/// Checks the version in the header of a message: another major version is not understood.
///
/// # Errors
/// A refusal for the sender if there is no version or another one.
pub fn check_protocol(version: Option<&str>) -> Result<(), Refusal> {
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    let message = match version {
        Some(version) if major(version) == major(PROTOCOL_VERSION) => return Ok(()),
        Some(version) => {
            let shown: String = version.chars().take(20).collect();
            format!(
                "the message is of protocol version {shown:?}, this process speaks \
                 {PROTOCOL_VERSION}; run the same release on both sides"
            )
        }
        None => {
            format!("the header {PROTOCOL_HEADER} is missing; set it to {PROTOCOL_VERSION}")
        }
    };
    Err(Refusal::new(code::PROTOCOL_VERSION, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_versions() {
        for (version, expect) in [
            (Some("1"), true),
            (Some("1.7"), true),
            (Some("2"), false),
            (Some("10"), false),
            (Some(""), false),
            (None, false),
        ] {
            let got = check_protocol(version);
            assert_eq!(got.is_ok(), expect, "{version:?}: {got:?}");
            assert!(got.is_ok() || got.is_err_and(|r| r.code == code::PROTOCOL_VERSION));
        }
    }
}
