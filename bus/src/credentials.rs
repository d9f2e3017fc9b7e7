//! Who this process is to nats-server, and whom it trusts.

use std::path::{Path, PathBuf};

use tasker_config::{Nats, Secret};

use crate::BusError;
use crate::address::{Address, Credentials};

/// Those of the settings, else those of the URL, if there are any.
///
/// # Errors
/// If the settings contradict each other, or the file of the password cannot be read.
pub(crate) fn read(address: Address, settings: &Nats) -> Result<Option<Credentials>, BusError> {
    const PASSWORD: &str = "nats.password";
    let Nats { user, password, password_file, .. } = settings;
    let in_file = !password_file.as_os_str().is_empty();
    let password = match (password.is_empty(), in_file) {
        (false, true) => {
            return Err(BusError::setting(PASSWORD, "nats.password_file is set as well"));
        }
        (true, true) => first_line(password_file)?,
        (_, false) => password.clone(),
    };
    match (user.is_empty(), password.is_empty()) {
        (true, true) => Ok(address.credentials),
        (true, false) => Err(BusError::setting("nats.user", "is empty, and there is a password")),
        (false, true) => Err(BusError::setting(PASSWORD, format!("the user `{user}` needs one"))),
        (false, false) => {
            let (user, password) = (user.clone(), password.expose().to_owned());
            Ok(Some(Credentials::Password { user, password }))
        }
    }
}

fn first_line(path: &Path) -> Result<Secret, BusError> {
    let wrong =
        |what: &str| BusError::setting("nats.password_file", format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => Err(wrong("holds no password in its first line")),
    }
}

/// The file of the certificates to trust, if there is one. It is looked at here: the client would try
/// again for ever with one that it cannot read.
///
/// # Errors
/// If it cannot be read or holds no certificate.
pub(crate) fn ca_file(settings: &Nats) -> Result<Option<PathBuf>, BusError> {
    let path = &settings.ca_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let wrong =
        |what: &str| BusError::setting("nats.ca_file", format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(wrong("holds no certificate in PEM"));
    }
    Ok(Some(path.clone()))
}

#[cfg(test)]
mod tests {
    use tasker_config::Loader;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Nats {
        let mut loader = Loader::new();
        for (key, value) in pairs {
            loader = loader.and_then(|l| l.flag(key, value, "test"));
        }
        loader.and_then(Loader::load).expect("valid settings").settings.nats
    }

    #[test]
    fn passwords_come_from_one_place() {
        let folder = std::env::temp_dir().join(format!("tasker-secret-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("written");
            path.to_str().expect("UTF-8").to_owned()
        };
        let (full, empty) = (file("full", "planted\nnot this\n"), file("empty", "\nplanted"));
        let user = ("nats.user", "w");
        let (by_file, by_value) = (("nats.password_file", &*full), ("nats.password", "planted"));
        let by_url = ("nats.url", "nats://u:planted@h");
        for (pairs, expect) in [
            (vec![], Ok(None)),
            (vec![user, by_value], Ok(Some("w"))),
            (vec![user, by_file], Ok(Some("w"))),
            (vec![by_url], Ok(Some("u"))),
            (vec![by_url, user, by_value], Ok(Some("w"))),
            (vec![user], Err("nats.password: the user `w` needs one")),
            (vec![by_value], Err("nats.user: is empty")),
            (vec![user, by_value, by_file], Err("nats.password: nats.password_file is set")),
            (vec![user, ("nats.password_file", &empty)], Err("holds no password")),
            (vec![user, ("nats.password_file", "/nowhere")], Err("nats.password_file: /nowhere")),
        ] {
            let settings = settings(&pairs);
            let got = read(Address::read(&settings.url), &settings);
            match (&got, expect) {
                (Ok(None), Ok(None)) => {}
                (Ok(Some(Credentials::Password { user, password })), Ok(Some(expect))) => {
                    assert_eq!((user.as_str(), password.as_str()), (expect, "planted"));
                }
                (Err(error), Err(expect)) => {
                    let text = error.to_string();
                    assert!(text.contains(expect) && !text.contains("planted"), "{text}");
                }
                _ => panic!("{pairs:?}: {got:?}"),
            }
        }
        let wrong = ca_file(&settings(&[("nats.ca_file", &full)])).expect_err("no certificate");
        assert!(wrong.to_string().contains("no certificate"), "{wrong}");
        assert!(ca_file(&settings(&[("nats.ca_file", "/nowhere")])).is_err());
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
