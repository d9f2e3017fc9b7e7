//! Commands that talk to database or bus themselves, with or without a cluster.

use std::path::Path;

use tasker_config::{Loaded, Origin, Settings};

use crate::cluster::ClusterArgs;
use crate::dev::DevState;
use crate::exit::Exit;
use crate::settings::{Flag, SettingsArgs};

/// The settings, with the database that was named, or else that of the `tasker dev` in the data folder.
pub(crate) fn with_database(
    args: &SettingsArgs,
    database_url: Option<String>,
    cluster: &ClusterArgs,
) -> Result<Settings, Exit> {
    let mut loaded = args.load([database(database_url)])?;
    use_dev_unless_named(&mut loaded, DATABASE, &cluster.data_dir)?;
    Ok(loaded.settings)
}

/// The same with a bus.
pub(crate) fn with_both(
    args: &SettingsArgs,
    database_url: Option<String>,
    nats_url: Option<String>,
    cluster: &ClusterArgs,
) -> Result<Settings, Exit> {
    let mut loaded = args.load([database(database_url), (BUS, nats_url, "--nats-url")])?;
    use_dev_unless_named(&mut loaded, DATABASE, &cluster.data_dir)?;
    use_dev_unless_named(&mut loaded, BUS, &cluster.data_dir)?;
    Ok(loaded.settings)
}

const DATABASE: &str = "database.url";
const BUS: &str = "nats.url";

fn database(url: Option<String>) -> Flag {
    (DATABASE, url, "--database-url")
}

/// Without a server that somebody named, the one of `tasker dev` is meant.
fn use_dev_unless_named(
    loaded: &mut Loaded,
    key: &'static str,
    data_dir: &Path,
) -> Result<(), Exit> {
    let value = loaded.values.get(key);
    if value.is_some_and(|(_, origin)| !matches!(origin, Origin::Default | Origin::Development)) {
        return Ok(());
    }
    let how = match key {
        BUS => "name a bus with --nats-url or NATS_URL",
        _ => "name a database with --database-url or DATABASE_URL",
    };
    let state = DevState::read(data_dir).map_err(|error| Exit::usage(format!("{error}: {how}")))?;
    match key {
        BUS => loaded.settings.nats.url = state.nats_url,
        _ => loaded.settings.database.url = state.database_url,
    }
    Ok(())
}
