//! Settings of nodes: defaults, a file, the environment, flags.

use std::path::PathBuf;

use clap::Args;
use tasker_config::{ConfigError, Loaded, Loader};

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
