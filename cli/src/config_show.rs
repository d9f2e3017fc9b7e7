use clap::Subcommand;
use serde_json::json;

use crate::output::{self, Format, OutputArgs};
use crate::settings::SettingsArgs;
use crate::table::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting with its value and where it comes from
    Show {
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(crate) fn run(command: ConfigCommand) -> anyhow::Result<()> {
    let ConfigCommand::Show { settings, output } = command;
    let loaded = settings.load([])?;
    let rows = loaded
        .values
        .iter()
        .map(|(key, (value, origin))| (key.as_str(), without_password(value), origin.to_string()));
    let text = match output.format {
        Format::Table => {
            let mut table = Table::with_header(&["SETTING", "VALUE", "SOURCE"]);
            rows.for_each(|(key, value, origin)| table.row([key.to_owned(), value, origin]));
            table.render()
        }
        Format::Json => {
            let rows: Vec<_> = rows
                .map(|(key, value, origin)| json!({"key": key, "value": value, "source": origin}))
                .collect();
            serde_json::to_string_pretty(&rows)?
        }
        Format::Ids => rows.map(|(key, ..)| format!("{key}\n")).collect(),
    };
    Ok(output::print(&text)?)
}

/// A URL as it may be shown: the password between `:` and `@` is blotted out.
fn without_password(value: &str) -> String {
    let hidden = || {
        let (scheme, rest) = value.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user, host) = authority.rsplit_once('@')?;
        let (name, _password) = user.split_once(':')?;
        let tail = &rest[authority.len()..];
        Some(format!("{scheme}://{name}:***@{host}{tail}"))
    };
    hidden().unwrap_or_else(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn passwords_are_not_shown() {
        let check = |value: &str, expect: &str| assert_eq!(without_password(value), expect);
        check("\"postgres://a:b@c:5/d?e\"", "\"postgres://a:***@c:5/d?e\"");
        check("\"postgres://a:b@b2@c:5/d\"", "\"postgres://a:***@c:5/d\"");
        check("\"postgres://a@c:5/d\"", "\"postgres://a@c:5/d\"");
        check("\"nats://127.0.0.1:4222\"", "\"nats://127.0.0.1:4222\"");
        check("64", "64");
    }
}
