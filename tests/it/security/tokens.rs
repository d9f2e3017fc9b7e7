//! The command line with tokens, and how many requests one of them may send.

use std::time::Instant;

use futures::future::join_all;
use serde_json::json;
use tasker_messages::code;
use tasker_tests::{Api, Cluster, Ended, Tool, until};
use uuid::Uuid;

use crate::support::{SOON, number};

async fn run(cluster: &Cluster, line: &str, more: &[&str]) -> anyhow::Result<Ended> {
    let data_dir = cluster.dev().data_dir().display().to_string();
    let words = ["--data-dir", &data_dir].into_iter().chain(line.split_whitespace());
    let all: Vec<&str> = words.chain(more.iter().copied()).collect();
    cluster.tool().run(&all).await
}

#[tokio::test]
async fn commands_with_tokens() -> anyhow::Result<()> {
    let cluster = Cluster::shared_with_tokens().await?;
    let viewer = cluster.token("cli-viewer --role viewer --namespace faulty").await?;
    let admin = cluster.token("cli-admin --role admin --all-namespaces --days 1").await?;
    let file = cluster.scratch().write("token", format!("{viewer}\n"))?;
    let nobody = "0190a0a0-0000-7000-8000-000000000000";
    let with = |token: &str, line: &str| format!("--token {token} {line}");
    // The line, its exit code, and what standard output and standard error hold.
    let table = [
        ("task list".to_owned(), 3, "", code::NOT_AUTHENTICATED),
        (with("nonsense", "task list"), 3, "", code::NOT_AUTHENTICATED),
        (with(&viewer, "task list"), 0, "", ""),
        (format!("--token-file {file} template list -o ids"), 0, "faulty/sleep", ""),
        ("--token-file /no/file task list".to_owned(), 2, "", "/no/file"),
        (with(&viewer, "task submit faulty/sleep"), 3, "", code::NOT_PERMITTED),
        (with(&viewer, &format!("task cancel {nobody}")), 3, "", code::NOT_PERMITTED),
        (with(&viewer, &format!("task get {nobody}")), 4, "", code::TASK_NOT_FOUND),
        (with(&viewer, "task list --namespace bench"), 3, "", code::FOREIGN_NAMESPACE),
        (with(&viewer, "template show bench/none"), 3, "", code::FOREIGN_NAMESPACE),
        (with(&admin, &format!("task cancel {nobody}")), 4, "", code::TASK_NOT_FOUND),
        ("token list".to_owned(), 0, "cli-viewer", ""),
        (
            "token create cli-viewer --role viewer --all-namespaces".to_owned(),
            2,
            "",
            code::TOKEN_EXISTS,
        ),
        (
            "token create not(ok) --role viewer --all-namespaces".to_owned(),
            2,
            "",
            code::INVALID_NAME,
        ),
        ("token revoke nobody".to_owned(), 4, "", code::TOKEN_NOT_FOUND),
        ("token revoke cli-viewer".to_owned(), 0, "revoked", ""),
        ("token revoke cli-viewer".to_owned(), 4, "", code::TOKEN_NOT_FOUND),
        ("token list --all".to_owned(), 0, "revoked", ""),
    ];
    for (line, exit, stdout, stderr) in table {
        let ended = run(&cluster, &line, &[]).await?;
        assert_eq!(ended.code, exit, "{line}: {ended:?}");
        assert!(
            ended.stdout.contains(stdout) && ended.stderr.contains(stderr),
            "{line}: {ended:?}"
        );
    }
    let made = run(
        &cluster,
        "token create cli-json --role operator --namespace a --namespace b -o json --by me",
        &[],
    )
    .await?;
    let made = made.json()?;
    let shown =
        (&made["name"], &made["role"], &made["namespaces"], &made["state"], &made["created_by"]);
    assert_eq!(
        shown,
        (
            &json!("cli-json"),
            &json!("operator"),
            &json!(["a", "b"]),
            &json!("active"),
            &json!("me")
        )
    );
    let token = made["token"].as_str().unwrap_or_default();
    assert!(token.starts_with("tasker_"), "{made}");
    let listed = run(&cluster, "token list --all -o json", &[]).await?;
    assert!(listed.stdout.contains("cli-json") && !listed.stdout.contains(token), "{listed:?}");
    Ok(())
}

/// Who is answered without a token is on this machine.
#[tokio::test]
async fn no_open_door_on_the_network() -> anyhow::Result<()> {
    let tool = Tool::find()?;
    for address in ["0.0.0.0:0", "[::]:0"] {
        let line = ["server", "run", "--http", address, "--set", "api.auth=none"];
        let ended = tool.run(&line).await?;
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains(code::API_UNPROTECTED), "{ended:?}");
    }
    let wrong = tool.run(&["server", "run", "--set", "api.auth=nobody"]).await?;
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.stderr.contains("nobody") && wrong.stderr.contains("tokens"), "{wrong:?}");
    let dev = tool.run(&["dev", "--http", "0.0.0.0:0"]).await?;
    assert_eq!(dev.code, 2, "{dev:?}");
    Ok(())
}

/// Each token has a bucket of its own, and whoever has none shares that of the address.
#[tokio::test]
async fn too_many_requests() -> anyhow::Result<()> {
    const BURST: usize = 40;
    let settings = format!("requests_per_second = 4\nrequest_burst = {BURST}\n");
    let cluster = Cluster::with_tokens(&settings, &[]).await?;
    let one = cluster.token("one --role viewer --all-namespaces").await?;
    let other = cluster.token("other --role viewer --all-namespaces").await?;
    let api = cluster.api()?;
    let (one, other, nobody) =
        (api.with_token(Some(&one)), api.with_token(Some(&other)), api.with_token(None));
    for (flood, admitted, refused) in [(&one, 200, "a token"), (&nobody, 401, "an address")] {
        let mut last = flood.send("GET", "/v1/workers", &[], Vec::new()).await?;
        let mut sent = 1;
        while last.status == admitted && sent < 50 * BURST {
            last = flood.send("GET", "/v1/workers", &[], Vec::new()).await?;
            sent += 1;
        }
        let got =
            (last.status, last.code(), last.retry_after.as_deref(), last.content_type.as_str());
        let expect = (429, code::TOO_MANY_REQUESTS, Some("1"), "application/problem+json");
        assert_eq!(got, expect, "{refused}: {}", last.text);
        assert!(sent > BURST / 2, "{refused}: {sent}");
        // Nobody else is meant.
        assert_eq!(
            other.send("GET", "/v1/workers", &[], Vec::new()).await?.status,
            200,
            "{refused}"
        );
        assert_eq!(flood.send("GET", "/health", &[], Vec::new()).await?.status, 200, "{refused}");
    }
    until("it may send again", SOON, async || {
        Ok(one.send("GET", "/v1/workers", &[], Vec::new()).await?.status == 200)
    })
    .await
}

/// Whoever guesses makes the database look a few times a second, whoever has a token not even that.
#[tokio::test]
async fn requests_do_not_reach_the_table_of_tokens() -> anyhow::Result<()> {
    let cluster = Cluster::with_tokens("", &[]).await?;
    let api = cluster.api()?;
    let looks = async || {
        // As often as connections that are idle have told it, which they do within a second.
        let query = "select seq_scan + coalesce(idx_scan, 0) as n from pg_stat_user_tables
                     where relname = 'api_tokens'";
        number(&cluster.database()?.row(query).await?, "n")
    };
    let before = looks().await?;
    let begun = Instant::now();
    let guess = || format!("tasker_{}_{:064x}", Uuid::now_v7().simple(), 7);
    let guesses: Vec<Api> = (0..400).map(|_| api.with_token(Some(&guess()))).collect();
    let answers =
        join_all(guesses.iter().map(|api| api.send("GET", "/v1/tasks", &[], Vec::new()))).await;
    for answer in answers {
        let answer = answer?;
        assert!(matches!(answer.status, 401 | 429), "{}", answer.text);
    }
    for _ in 0..400 {
        assert_eq!(api.send("GET", "/v1/namespaces", &[], Vec::new()).await?.status, 200);
    }
    // The last to look has told of it when somebody made it look again.
    let seconds = begun.elapsed().as_secs() + 2;
    until("the looks are counted", SOON, async || Ok(looks().await? > before)).await?;
    let looked = looks().await? - before;
    // Two orchestrators, four times a second.
    assert!(looked <= seconds * 8, "{looked} times in {seconds} s");
    Ok(())
}
