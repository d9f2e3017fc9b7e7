//! `tasker token …`: on the database itself, since the first token must come from somewhere.

use clap::{Args, Subcommand};
use serde_json::json;
use tasker_messages::{Namespace, Refusal, Role, Scope, TokenView, check_token_name, code};
use tasker_store::{ApiToken, NewToken, Store};

use crate::cluster::ClusterArgs;
use crate::exit::{Code, Exit};
use crate::output::{self, Format, OutputArgs};
use crate::servers;
use crate::settings::SettingsArgs;
use crate::table::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is printed now and never again
    Create(CreateArgs),
    /// List tokens, without their secrets
    List(ListArgs),
    /// Revoke a token: orchestrators refuse it within `api.token_refresh_ms`
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What it is called in the audit trail
    name: String,
    /// What it may be used for: viewer, submitter, operator or admin
    #[arg(long)]
    role: Role,
    /// A namespace that it is good for; may be given more than once
    #[arg(long, value_name = "NAME", required_unless_present = "all_namespaces")]
    namespace: Vec<Namespace>,
    /// It is good for every namespace
    #[arg(long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// For how many days it is accepted
    #[arg(long, value_name = "DAYS", default_value_t = 90,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(NewToken::MOST_DAYS)))]
    days: u32,
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Also those that are not accepted any more
    #[arg(long)]
    all: bool,
    /// At most so many, the newest
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Its id, or the name of one that is not revoked
    // Not `token`, which is the one that every command may be given.
    #[arg(value_name = "TOKEN")]
    named: String,
    #[command(flatten)]
    who: Who,
}

/// Who does it, and where.
#[derive(Debug, Args)]
pub(crate) struct Who {
    /// Who asks; kept in the audit trail
    #[arg(long, value_name = "NAME", env = "USER", default_value = "cli")]
    by: String,
    #[command(flatten)]
    place: Place,
}

/// On which database, and how to print.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The database; also DATABASE_URL; without either that of the `tasker dev` in the data folder
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(command: TokenCommand, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let text = match command {
        TokenCommand::Create(args) => create(args, cluster).await?,
        TokenCommand::List(ListArgs { all, limit, place }) => {
            let store = place.store(cluster).await?;
            let tokens = store.list_tokens(all, limit).await?;
            store.close().await;
            list(&tokens, place.output.format)?
        }
        TokenCommand::Revoke(RevokeArgs { named, who }) => {
            let store = who.place.store(cluster).await?;
            let revoked = store.revoke_token(&named, &who.by).await?;
            store.close().await;
            let none = || {
                let message = format!("there is no token `{named}` [{}]", code::TOKEN_NOT_FOUND);
                Exit::new(Code::NotFound, message)
            };
            list(&[revoked.ok_or_else(none)?], who.place.output.format)?
        }
    };
    Ok(output::print(&text)?)
}

async fn create(args: CreateArgs, cluster: &ClusterArgs) -> anyhow::Result<String> {
    let CreateArgs { name, role, namespace, all_namespaces, days, who } = args;
    check_token_name(&name).map_err(|problem| Exit::usage(problem.to_string()))?;
    let scope = if all_namespaces { Scope::All } else { Scope::Only(namespace) };
    let new = NewToken { name, role, scope, days, by: who.by };
    let token = ApiToken::generate()?;
    let store = who.place.store(cluster).await?;
    let made = store.create_token(&token, &new).await?;
    store.close().await;
    let view = made.map_err(|refusal: Refusal| Exit::usage(refusal.to_string()))?;
    made_as(&view, &token, who.place.output.format)
}

impl Place {
    async fn store(&self, cluster: &ClusterArgs) -> anyhow::Result<Store> {
        let settings = servers::with_database(&self.settings, self.database_url.clone(), cluster)?;
        Ok(Store::connect(&settings.database).await?)
    }
}

/// A token that was made. With `-o ids` it is the token itself, for a variable of a script.
fn made_as(view: &TokenView, token: &ApiToken, format: Format) -> anyhow::Result<String> {
    let secret = token.reveal();
    Ok(match format {
        Format::Ids => secret,
        Format::Json => {
            let mut document = serde_json::to_value(view)?;
            document["token"] = json!(secret);
            serde_json::to_string_pretty(&document)?
        }
        Format::Table => {
            let table = list(std::slice::from_ref(view), format)?;
            format!("{table}\nThe token is shown this once; it goes into TASKER_TOKEN:\n{secret}\n")
        }
    })
}

fn list(tokens: &[TokenView], format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(tokens)?,
        Format::Ids => tokens.iter().map(|token| format!("{}\n", token.id)).collect(),
        Format::Table => {
            let header = ["NAME", "ROLE", "NAMESPACES", "STATE", "EXPIRES", "CREATED BY", "ID"];
            let mut table = Table::with_header(&header);
            for token in tokens {
                let namespaces = token
                    .namespaces
                    .as_ref()
                    .map(|names| names.iter().map(Namespace::as_str).collect::<Vec<_>>().join(","));
                table.row([
                    token.name.clone(),
                    token.role.to_string(),
                    namespaces.unwrap_or_else(|| "*".to_owned()),
                    token.state.to_string(),
                    token.expires_at.clone(),
                    token.created_by.clone(),
                    token.id.to_string(),
                ]);
            }
            table.render()
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: TokenCommand,
    }

    #[test]
    fn the_scope_must_be_said() {
        let parsed = |line: &str| {
            let line = ["tasker"].into_iter().chain(line.split_whitespace());
            Line::try_parse_from(line).map(|line| line.command)
        };
        for right in [
            "create ci --role viewer --all-namespaces",
            "create ci --role admin --namespace a --namespace b --days 3660",
            "revoke ci",
            "list --all",
        ] {
            parsed(right).expect(right);
        }
        for wrong in [
            "create ci --role viewer",
            "create ci --all-namespaces",
            "create ci --role owner --all-namespaces",
            "create ci --role viewer --all-namespaces --namespace a",
            "create ci --role viewer --namespace A",
            "create ci --role viewer --all-namespaces --days 0",
            "create ci --role viewer --all-namespaces --days 3661",
            "revoke",
        ] {
            parsed(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn tokens_as_people_read_them() {
        let view: TokenView = serde_json::from_value(json!({
            "id": "0190a0a0-0000-7000-8000-000000000001", "name": "ci", "role": "submitter",
            "namespaces": ["a", "b"], "state": "active", "created_at": "t0", "created_by": "me",
            "expires_at": "t1",
        }))
        .expect("a token");
        let all = TokenView { namespaces: None, ..view.clone() };
        let shown = list(&[view.clone(), all], Format::Table).expect("shown");
        let id = view.id;
        assert_eq!(
            shown,
            format!(
                "NAME  ROLE       NAMESPACES  STATE   EXPIRES  CREATED BY  ID\n\
                 ci    submitter  a,b         active  t1       me          {id}\n\
                 ci    submitter  *           active  t1       me          {id}\n"
            )
        );
        let token = ApiToken::generate().expect("random bytes");
        for format in [Format::Ids, Format::Json, Format::Table] {
            let made = made_as(&view, &token, format).expect("shown");
            assert_eq!(made.matches(&token.reveal()).count(), 1, "{made}");
        }
    }
}
