//! Commands that work on the database itself, with or without a cluster.

use std::path::Path;

use tasker_config::{Loaded, Origin, Settings};

use crate::cluster::ClusterArgs;
use crate::dev::DevState;
use crate::exit::Exit;
use crate::settings::SettingsArgs;

/// The settings, with the database that was named, or else that of the `tasker dev` in the data folder.
pub(crate) fn settings(
    args: &SettingsArgs,
    database_url: Option<String>,
    cluster: &ClusterArgs,
) -> Result<Settings, Exit> {
    let mut loaded = args.load([("database.url", database_url, "--database-url")])?;
    use_dev_unless_named(&mut loaded, &cluster.data_dir)?;
    Ok(loaded.settings)
}

/// Without a database that somebody named, the one of `tasker dev` is meant.
fn use_dev_unless_named(loaded: &mut Loaded, data_dir: &Path) -> Result<(), Exit> {
    let is_named = loaded
        .values
        .get("database.url")
        .is_some_and(|(_, origin)| !matches!(origin, Origin::Default | Origin::Development));
    if is_named {
        return Ok(());
    }
    let state = DevState::read(data_dir).map_err(|error| {
        Exit::usage(format!("{error}: name a database with --database-url or DATABASE_URL"))
    })?;
    loaded.settings.database.url = state.database_url;
    Ok(())
}
