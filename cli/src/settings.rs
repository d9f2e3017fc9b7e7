//! Settings of nodes: defaults, a file, the environment, flags.

use std::path::{Path, PathBuf};

use clap::Args;
use tasker_config::{ConfigError, Loaded, Loader, Origin};

use crate::dev::DevState;
use crate::exit::Exit;

/// Flags that lead to settings.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SettingsArgs {
    /// A TOML file of settings
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, over file and environment
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = assignment)]
    pub(crate) assignments: Vec<(String, String)>,
    /// Begin with the defaults of `tasker dev`
    #[arg(long, hide = true)]
    pub(crate) development: bool,
}

/// A flag that stands for a setting: its key, its value, its name.
pub(crate) type Flag = (&'static str, Option<String>, &'static str);

impl SettingsArgs {
    /// Loads the settings; `flags` win over everything.
    pub(crate) fn load(&self, flags: impl IntoIterator<Item = Flag>) -> Result<Loaded, Exit> {
        self.layers(flags).map_err(|error| Exit::usage(error.to_string()))
    }

    fn layers(&self, flags: impl IntoIterator<Item = Flag>) -> Result<Loaded, ConfigError> {
        let mut loader = Loader::new()?;
        if self.development {
            loader = loader.development()?;
        }
        if let Some(path) = &self.config {
            loader = loader.file(path)?;
        }
        loader = loader.environment(tasker_config::process_environment())?;
        for (key, value) in &self.assignments {
            loader = loader.flag(key, value, "--set")?;
        }
        for (key, value, flag) in flags {
            if let Some(value) = value {
                loader = loader.flag(key, &value, flag)?;
            }
        }
        loader.load()
    }
}

/// Without a database that somebody named, the one of `tasker dev` is meant.
pub(crate) fn use_database_of_dev(loaded: &mut Loaded, data_dir: &Path) -> Result<(), Exit> {
    if !is_named(loaded, "database.url") {
        let state = DevState::read(data_dir).map_err(|error| {
            Exit::usage(format!("{error}: name a database with --database-url or DATABASE_URL"))
        })?;
        loaded.settings.database.url = state.database_url;
    }
    Ok(())
}

/// Without a bus that somebody named, the one of `tasker dev` is meant.
pub(crate) fn use_bus_of_dev(loaded: &mut Loaded, data_dir: &Path) -> Result<(), Exit> {
    if !is_named(loaded, "nats.url") {
        let state = DevState::read(data_dir).map_err(|error| {
            Exit::usage(format!("{error}: name a bus with --nats-url or NATS_URL"))
        })?;
        loaded.settings.nats.url = state.nats_url;
    }
    Ok(())
}

fn is_named(loaded: &Loaded, key: &str) -> bool {
    let value = loaded.values.get(key);
    value.is_some_and(|(_, origin)| !matches!(origin, Origin::Default | Origin::Development))
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be SECTION.KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_assignments() {
        let args = SettingsArgs {
            assignments: vec![
                assignment("worker.slots=3").expect("valid"),
                assignment("worker.queues=a,b").expect("valid"),
            ],
            ..SettingsArgs::default()
        };
        let slots = |value: Option<&str>| ("worker.slots", value.map(str::to_owned), "--slots");
        assert_eq!(args.load([slots(None)]).expect("valid").settings.worker.slots, 3);
        let loaded = args.load([slots(Some("4"))]).expect("valid");
        assert_eq!(loaded.settings.worker.slots, 4);
        assert_eq!(loaded.settings.worker.queues, ["a", "b"]);
        assert!(args.load([slots(Some("many"))]).is_err());
        assert!(assignment("worker.slots").is_err());
    }
}
