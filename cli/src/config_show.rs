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
    let rows = loaded.values.iter().map(|(key, (value, origin))| {
        (key.as_str(), without_password(key, value), origin.to_string())
    });
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

/// Parameters of a database's URL that are no secrets.
const SHOWN: [&str; 8] =
    ["sslmode", "sslrootcert", "sslcert", "application_name", "host", "port", "user", "dbname"];

/// A value as it may be shown: of URLs, passwords and tokens are blotted out. There may be several with
/// commas between them.
fn without_password(key: &str, value: &str) -> String {
    if !key.ends_with(".url") {
        return value.to_owned();
    }
    value.split(',').map(url_without_password).collect::<Vec<_>>().join(",")
}

fn url_without_password(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let rest = match rest.rsplit_once('@') {
        None => rest.to_owned(),
        Some((user, host)) => match user.split_once(':') {
            Some((name, _password)) => format!("{name}:***@{host}"),
            // Of a database it is a name, of the bus a token.
            None if scheme.contains("postgres") => format!("{user}@{host}"),
            None => format!("***@{host}"),
        },
    };
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let parameters = parameters.map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if !SHOWN.contains(&name) => format!("{name}=***"),
        _ => parameter.to_owned(),
    });
    let query: Vec<String> = parameters.collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    // The value is a TOML text.
    let closed = !url.ends_with('"') || query.is_empty() || query.ends_with('"');
    format!("{scheme}{rest}{query}{}", if closed { "" } else { "\"" })
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn passwords_are_not_shown() {
        let check = |value: &str, expect: &str| {
            assert_eq!(without_password("database.url", value), expect);
        };
        check("\"postgres://a:b@c:5/d\"", "\"postgres://a:***@c:5/d\"");
        check("\"postgres://a:b@b2@c:5/d\"", "\"postgres://a:***@c:5/d\"");
        check("\"postgres://a@c:5/d\"", "\"postgres://a@c:5/d\"");
        check("\"postgres://a:b@c/d?sslmode=x\"", "\"postgres://a:***@c/d?sslmode=x\"");
        check("\"postgres://a@c/d?password=p\"", "\"postgres://a@c/d?password=***\"");
        check("\"postgres://a@c/d?x=p&host=h\"", "\"postgres://a@c/d?x=***&host=h\"");
        check("\"nats://127.0.0.1:4222\"", "\"nats://127.0.0.1:4222\"");
        check("\"nats://a:b@c, nats://d:e@f\"", "\"nats://a:***@c, nats://d:***@f\"");
        check("\"nats://token@c\"", "\"nats://***@c\"");
        check("\"a:b@c\"", "\"a:***@c\"");
        assert_eq!(without_password("worker.queues", "a:b@c"), "a:b@c");
    }
}
