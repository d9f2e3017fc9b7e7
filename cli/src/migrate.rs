use clap::Args;

use crate::nodes;
use crate::output;
use crate::settings::SettingsArgs;

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The database; also DATABASE_URL
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Also take away what nodes of earlier releases use: none of them may run any more
    #[arg(long)]
    contract: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(crate) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let flags = [("database.url", args.database_url, "--database-url")];
    let settings = args.settings.load(flags)?.settings;
    let migrated = nodes::migrate(&settings.database, args.contract).await?;
    match migrated.held_back {
        None => output::note(&"the database is up to date"),
        Some((step, needs)) => output::note(&format_args!(
            "the database is at schema version {}; step {step} is left for `tasker migrate --contract`, \
             once no node runs that does not know schema version {needs}",
            migrated.applied
        )),
    }
    Ok(())
}
