use clap::Args;

use crate::nodes;
use crate::output;
use crate::settings::SettingsArgs;

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The database; also DATABASE_URL
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(crate) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let flags = [("database.url", args.database_url, "--database-url")];
    let settings = args.settings.load(flags)?.settings;
    nodes::migrate(&settings.database).await?;
    output::note(&"the database is up to date");
    Ok(())
}
