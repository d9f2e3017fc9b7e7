//! Layers of settings: which source said what.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::{ConfigError, Settings};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `default.toml`, built in.
    Default,
    /// `development.toml`, built in, used by `tasker dev`.
    Development,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Development => f.write_str("development default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Settings and the source of each value.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Every key (`section.key`) with its value as TOML and its source, for `tasker config show`.
    pub values: BTreeMap<String, (String, Origin)>,
}

/// Puts layers of settings over one another. Unknown keys and values of the wrong type are errors
/// that name the layer.
#[derive(Debug)]
pub struct Loader {
    values: BTreeMap<String, (Value, Origin)>,
}

const DEFAULTS: &str = include_str!("../default.toml");
const DEVELOPMENT: &str = include_str!("../development.toml");

/// Variables of the environment that have a name of their own.
const PLAIN_VARIABLES: [(&str, &str); 2] =
    [("DATABASE_URL", "database.url"), ("NATS_URL", "nats.url")];

impl Loader {
    /// Begins with the built-in defaults.
    pub fn new() -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        for (key, value) in flatten(read(DEFAULTS, &Origin::Default)?) {
            values.insert(key, (value, Origin::Default));
        }
        Ok(Self { values })
    }

    /// Adds what `tasker dev` changes.
    pub fn development(self) -> Result<Self, ConfigError> {
        self.layer(DEVELOPMENT, &Origin::Development)
    }

    /// Adds a file.
    pub fn file(self, path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        self.layer(&text, &Origin::File(path.to_owned()))
    }

    /// Adds the variables `TASKER__SECTION__KEY`, `DATABASE_URL` and `NATS_URL`. A list is given
    /// with commas.
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        for (name, text) in variables {
            let plain = PLAIN_VARIABLES.iter().find(|(plain, _)| *plain == name);
            let key = match (plain, name.strip_prefix("TASKER__")) {
                (Some((_, key)), _) => (*key).to_owned(),
                (None, Some(rest)) => rest.to_ascii_lowercase().replacen("__", ".", 1),
                (None, None) => continue,
            };
            self.set(&key, &text, Origin::Environment(name))?;
        }
        Ok(self)
    }

    /// Adds one value given on the command line.
    pub fn flag(mut self, key: &str, text: &str, flag: &str) -> Result<Self, ConfigError> {
        self.set(key, text, Origin::Flag(flag.to_owned()))?;
        Ok(self)
    }

    /// Checks and types the result.
    pub fn load(self) -> Result<Loaded, ConfigError> {
        let mut root = Table::new();
        for (key, (value, _)) in &self.values {
            let (section, name) = key.split_once('.').unwrap_or((key, ""));
            let section = root.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(name.to_owned(), value.clone());
            }
        }
        let settings: Settings = root.try_into().map_err(|e: toml::de::Error| {
            ConfigError::Syntax { origin: "settings".into(), message: e.message().to_owned() }
        })?;
        let values = self.values.into_iter().map(|(k, (v, o))| (k, (v.to_string(), o))).collect();
        Ok(Loaded { settings, values })
    }

    fn layer(mut self, text: &str, origin: &Origin) -> Result<Self, ConfigError> {
        for (key, value) in flatten(read(text, origin)?) {
            self.put(&key, value, origin.clone())?;
        }
        Ok(self)
    }

    /// Reads a text as the type that the default of the key has.
    fn set(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let value = match self.values.get(key) {
            Some((Value::Integer(_), _)) => Value::Integer(
                text.parse()
                    .map_err(|_| invalid(&origin, key, format!("`{text}` is not an integer")))?,
            ),
            Some((Value::Boolean(_), _)) => Value::Boolean(
                text.parse()
                    .map_err(|_| invalid(&origin, key, format!("`{text}` is not true or false")))?,
            ),
            Some((Value::Array(_), _)) => {
                Value::Array(text.split(',').map(|s| Value::String(s.trim().to_owned())).collect())
            }
            _ => Value::String(text.to_owned()),
        };
        self.put(key, value, origin)
    }

    fn put(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let Some((known, _)) = self.values.get(key) else {
            return Err(ConfigError::UnknownKey {
                origin: origin.to_string(),
                key: key.to_owned(),
            });
        };
        if known.type_str() != value.type_str() {
            let message = format!("must be of type {}, not {}", known.type_str(), value.type_str());
            return Err(invalid(&origin, key, message));
        }
        if matches!(value, Value::Integer(n) if n < 0) {
            return Err(invalid(&origin, key, "must not be negative".to_owned()));
        }
        self.values.insert(key.to_owned(), (value, origin));
        Ok(())
    }
}

/// The environment of this process, for [`Loader::environment`]. Variables that are not UTF-8 cannot
/// be settings, and `std::env::vars` would panic on them. An empty one counts as not given.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(_, value)| !value.is_empty())
}

fn invalid(origin: &Origin, key: &str, message: String) -> ConfigError {
    ConfigError::Value { origin: origin.to_string(), key: key.to_owned(), message }
}

/// An error names the line and does not show it: there may be a password in it.
fn read(text: &str, origin: &Origin) -> Result<Table, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| format!("line {}: ", before.matches('\n').count() + 1));
        let message = format!("{}{}", line.unwrap_or_default(), error.message());
        ConfigError::Syntax { origin: origin.to_string(), message }
    })
}

/// `section.key` of every value. A value outside a section keeps its bare name and is refused as
/// unknown.
fn flatten(table: Table) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (section, value) in table {
        match value {
            Value::Table(keys) => {
                flat.extend(keys.into_iter().map(|(key, v)| (format!("{section}.{key}"), v)));
            }
            other => flat.push((section, other)),
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str, value: &str) -> Result<Loaded, ConfigError> {
        Loader::new()?.environment([(name.to_owned(), value.to_owned())])?.load()
    }

    #[test]
    fn defaults_are_complete() {
        let loaded = Loader::new().and_then(Loader::load).expect("default.toml is complete");
        assert_eq!(loaded.settings.worker.slots, 64);
        let development = Loader::new().and_then(Loader::development).and_then(Loader::load);
        assert!(development.is_ok(), "{development:?}");
    }

    #[test]
    fn the_environment_wins_and_is_named() {
        let loaded = env("TASKER__WORKER__SLOTS", "7").expect("a known key");
        assert_eq!(loaded.settings.worker.slots, 7);
        assert_eq!(
            loaded.values["worker.slots"],
            ("7".to_owned(), Origin::Environment("TASKER__WORKER__SLOTS".into()))
        );
        let loaded = env("TASKER__WORKER__DATA_ROOTS", "/a, /b").expect("a list");
        assert_eq!(loaded.settings.worker.data_roots, ["/a", "/b"].map(PathBuf::from));
        let loaded = env("TASKER__WORKER__EXIT_WHEN_DRAINED", "true").expect("true or false");
        assert!(loaded.settings.worker.exit_when_drained);
        assert_eq!(env("NATS_URL", "nats://x:1").expect("known").settings.nats.url, "nats://x:1");
    }

    #[test]
    fn a_broken_line_is_named_and_not_shown() {
        let text = "[node]\nenvironment = \"x\"\n[database]\nurl = \"postgres://u:canary@h\n";
        let error = read(text, &Origin::Default).expect_err("not closed").to_string();
        assert!(error.contains("line 4") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        let check = |name: &str, value: &str, expect: &str| {
            let error = env(name, value).expect_err("a mistake").to_string();
            assert!(error.contains(expect) && error.contains(name), "{error}");
        };
        check("TASKER__WORKER__SLOTZ", "7", "unknown setting `worker.slotz`");
        check("TASKER__WORKER__SLOTS", "many", "`many` is not an integer");
        check("TASKER__WORKER__SLOTS", "-1", "must not be negative");
        check("TASKER__WORKER__EXIT_WHEN_DRAINED", "1", "`1` is not true or false");
        check("TASKER__NOWHERE", "1", "unknown setting `nowhere`");
    }
}
