//! What nobody may read: secrets are planted wherever Tasker is given some, and looked for wherever
//! it writes something.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use serde_json::json;
use tasker_tests::{Api, Cluster, Database, Scratch, Tool, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use crate::support::SOON;

/// A secret that is found nowhere by chance.
fn canary(what: &str) -> String {
    format!("canary{what}{}", Uuid::now_v7().simple())
}

/// A nats-server that asks for a password; ends with this value.
struct Nats(Child);

impl Nats {
    fn start(folder: &Path, password: &str) -> anyhow::Result<(Self, String)> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let program = std::env::var("TASKER_NATS_SERVER").context("TASKER_NATS_SERVER")?;
        let config = folder.join("nats-with-password.conf");
        let store = folder.join("jetstream");
        let text = format!(
            "host: 127.0.0.1\nport: {port}\nmax_payload: 8MB\njetstream {{ store_dir: {:?} }}\n\
             authorization {{ user: tasker, password: {password:?} }}\n",
            store.display().to_string(),
        );
        fs::write(&config, text)?;
        let server = Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn()?;
        Ok((Self(server), format!("nats://tasker:{password}@127.0.0.1:{port}")))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A service that says back whatever it is sent: first as something that may pass, then for good.
async fn echo() -> anyhow::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        for n in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut request = vec![0; 16 * 1024];
            let bytes = stream.read(&mut request).await.unwrap_or(0);
            let said = String::from_utf8_lossy(&request[..bytes]).into_owned();
            let authorization = said.lines().find(|line| line.starts_with("authorization"));
            let secret = authorization.unwrap_or_default().rsplit(' ').next().unwrap_or_default();
            let status = if n == 0 { "500 Broken" } else { "400 Bad" };
            let head =
                format!("HTTP/1.1 {status}\r\nwww-authenticate: {secret}\r\nconnection: close");
            let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{said}", said.len());
            // Whoever has gone needs no answer.
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok(format!("http://{address}"))
}

fn fetch(base_url: &str, variable: &str) -> String {
    format!(
        "name: fetch
namespace_name: canaries
version: 1.0.0
steps:
  - name: fetch
    handler:
      callable: http_fetch.sum
      initialization: {{base_url: '{base_url}', allow_networks: ['127.0.0.1'], token_variable: {variable},
                       items: /items, cursor: /next, cursor_parameter: after, field: /x}}
    retry: {{max_attempts: 2, backoff: none}}
"
    )
}

/// Everything that Tasker has written somewhere, with the place where it was found.
struct Outputs(Vec<(String, String)>);

impl Outputs {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    fn add_files(&mut self, folder: &Path) -> anyhow::Result<()> {
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let text = fs::read(&path)?;
                self.add(path.display().to_string(), String::from_utf8_lossy(&text));
            }
        }
        Ok(())
    }

    /// What others on this machine can list.
    fn add_command_lines(&mut self, pids: impl Iterator<Item = i32>) {
        for pid in pids {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            self.add(format!("the command line of {pid}"), String::from_utf8_lossy(&line));
        }
    }

    async fn add_tables(&mut self, database: &Database) -> anyhow::Result<()> {
        let tables = database
            .rows(
                "select schemaname || '.' || tablename as name from pg_tables
                   where schemaname not in ('pg_catalog', 'information_schema')",
            )
            .await?;
        let names = tables.as_array().into_iter().flatten().filter_map(|t| t["name"].as_str());
        let names: Vec<&str> = names.collect();
        assert!(names.len() > 15, "{names:?}");
        for table in names {
            // As text, with what is in binary columns.
            let rows =
                database.run(&format!("select t::text, to_jsonb(t)::text from {table} t")).await?;
            self.add(format!("table {table}"), String::from_utf8_lossy(&rows));
        }
        Ok(())
    }

    async fn add_answers(&mut self, api: &Api, tasks: &[String]) -> anyhow::Result<()> {
        let lists = ["tasks", "workers", "dlq", "dlq/groups", "namespaces", "templates"];
        let mut paths: Vec<String> = lists.iter().map(|list| format!("/v1/{list}")).collect();
        for task in tasks {
            let rest = ["", "/summary", "/why", "/steps", "/steps/fetch"];
            paths.extend(rest.iter().map(|rest| format!("/v1/tasks/{task}{rest}")));
        }
        for path in paths.iter().map(String::as_str).chain(["/metrics", "/ready", "/health"]) {
            let answer = api.get(path).await?;
            self.add(format!("GET {path}"), answer.text);
        }
        Ok(())
    }

    /// Where any of these is found.
    fn find(&self, canaries: &[String]) -> String {
        let mut found = String::new();
        for (place, text) in &self.0 {
            for canary in canaries {
                if let Some(at) = text.find(canary.as_str()) {
                    let before: String = text[..at].chars().rev().take(120).collect();
                    let before: String = before.chars().rev().collect();
                    found += &format!("{place} shows {canary:.20} after: {before}\n");
                }
            }
        }
        found
    }
}

/// Variables in the environment of every process, that of `fetch` first.
const VARIABLES: [&str; 6] = [
    "CANARY_SERVICE_TOKEN",
    "CANARY_UNUSED",
    "AWS_SECRET_ACCESS_KEY",
    "SMTP_PASSWORD",
    "PGPASSFILE_CONTENT",
    "CANARY_API_KEY",
];

/// Sends what should not be where it is, and returns what was answered.
async fn misplaced(api: &Api, canaries: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let mut answers = Vec::new();
    let [token, basic, key, cookie, parameter, other] = canaries else {
        anyhow::bail!("six of them, not {}", canaries.len());
    };
    let headers = [
        ("authorization", format!("Bearer {token}")),
        ("authorization", format!("Basic {basic}")),
        ("x-api-key", key.clone()),
        ("cookie", format!("session={cookie}")),
        ("x-forwarded-for", other.clone()),
    ];
    let anonymous = api.with_token(None);
    for (name, value) in &headers {
        for path in ["/v1/tasks", "/v1/nothing", "/metrics"] {
            let headers = [(*name, value.as_bytes())];
            for api in [api, &anonymous] {
                let answer = api.send("GET", path, &headers, Vec::new()).await?;
                answers.push((format!("{path} with {name}"), answer.text));
            }
        }
    }
    for path in
        [format!("/v1/tasks?token={parameter}"), format!("/v1/tasks?limit=1&token={parameter}")]
    {
        let answer = api.send("GET", &path, &[], Vec::new()).await?;
        assert_eq!(answer.status, 400, "{}", answer.text);
        answers.push(("a parameter".to_owned(), answer.text));
    }
    Ok(answers)
}

#[tokio::test]
async fn canaries_are_seen_nowhere() -> anyhow::Result<()> {
    let (base, folder) = (Cluster::shared().await?, Scratch::new()?);
    let name = format!("canaries_{}", Uuid::now_v7().simple());
    base.database()?.run(&format!("create database {name}")).await?;
    let database = base.database()?.named(&name);
    let variables: Vec<String> = VARIABLES.iter().map(|name| canary(name)).collect();
    let (sql, bus) = (canary("database"), canary("nats"));
    let (server, nats_url) = Nats::start(folder.path(), &bus)?;
    let mut environment: Vec<(&str, String)> =
        VARIABLES.into_iter().zip(variables.iter().cloned()).collect();
    // That server asks nobody for a password; the clients have one all the same.
    let database_url = database.url().replacen("postgres@", &format!("postgres:{sql}@"), 1);
    assert!(database_url.contains(&sql), "{database_url}");
    environment.push(("DATABASE_URL", database_url));
    environment.push(("NATS_URL", nats_url.clone()));
    environment.push(("RUST_LOG", "debug".to_owned()));
    let cluster = Cluster::with_tokens("", &environment).await?;
    let api = cluster.api()?;
    let heard = listen(&nats_url).await?;
    let mut outputs = Outputs(Vec::new());

    // Tokens: one that is used, one that is revoked, and those that are none.
    let viewer = cluster.token("canary --role viewer --namespace canaries").await?;
    let as_viewer = api.with_token(Some(&viewer));
    outputs.add("a viewer", as_viewer.get("/v1/tasks").await?.text);
    outputs.add("a viewer", as_viewer.send("DELETE", "/v1/tasks/x", &[], Vec::new()).await?.text);
    let data_dir = cluster.dev().data_dir().display().to_string();
    for command in [
        &["token", "list", "--all"][..],
        &["token", "list", "-o", "json"],
        &["token", "revoke", "canary"],
        &["verify"],
    ] {
        let ended = cluster.tool().run(&[&["--data-dir", &data_dir], command].concat()).await?;
        assert_eq!(ended.code, 0, "{ended:?}");
        outputs.add(format!("{command:?}"), ended.stdout + &ended.stderr);
    }
    let placed: Vec<String> = (0..6).map(|n| canary(&format!("header{n}"))).collect();
    outputs.0.extend(misplaced(&api, &placed).await?);
    let given = canary("flag");
    let refused = ["--data-dir", &data_dir, "--token", &given, "task", "list"];
    let refused = cluster.tool().run(&refused).await?;
    assert_eq!(refused.code, 3, "{refused:?}");
    outputs.add("a refused command", refused.stdout + &refused.stderr);

    // A handler that uses a secret, with a service that says it back; and one that fails otherwise.
    api.register(&fetch(&echo().await?, VARIABLES[0])).await?;
    let fetched = api.run("canaries", "fetch", json!({"path": "x"}), SOON).await?;
    assert_eq!(fetched.error_code(), "API_STATUS_REFUSED", "{}", fetched.view);
    assert!(fetched.view.to_string().contains("***"), "the service says it back: {}", fetched.view);
    let panicked = api.run("faulty", "panic", json!({}), SOON).await?;
    assert_eq!(panicked.error_code(), "HANDLER_PANIC", "{}", panicked.view);

    let tasks = [fetched.id().to_owned(), panicked.id().to_owned()];
    outputs.add_answers(&api, &tasks).await?;
    outputs.add_command_lines(cluster.state()?.pids.nodes());
    outputs.add_tables(&database).await?;
    until("the work was heard", SOON, async || Ok(heard().contains("tasker.outcome.canaries")))
        .await?;
    outputs.add("messages", heard());
    outputs.add_files(&cluster.dev().data_dir().join("logs"))?;
    outputs.add_files(cluster.scratch().path())?;

    let secret = |token: &str| token.rsplit('_').next().unwrap_or_default().to_owned();
    let own = secret(api.token().context("a token")?);
    let extra = cluster.token("extra --role admin --all-namespaces").await?;
    let tokens = vec![own, secret(&viewer), secret(&extra)];
    let canaries = [variables, placed, vec![sql, bus, given], tokens].concat();
    assert!(canaries.len() >= 18, "{}", canaries.len());
    let found = outputs.find(&canaries);
    assert!(found.is_empty(), "\n{found}");
    // They were looked for where they would have been found.
    let places = outputs.0.len();
    assert!(places > 40 && !outputs.find(&["canaries".to_owned()]).is_empty(), "{places}");
    drop(cluster);
    drop(server);
    Ok(())
}

/// Hears every message on the bus; the function gives what was heard so far.
async fn listen(url: &str) -> anyhow::Result<impl Fn() -> String> {
    let settings = tasker_config::Loader::new()?.flag("nats.url", url, "tests")?.load()?.settings;
    let bus = tasker_bus::Bus::connect(&settings.nats, "tasker-tests").await?;
    bus.wait_connected(SOON).await?;
    let mut all = bus.subscribe(">", None).await?;
    bus.publish_confirmed(&[]).await?;
    let heard = Arc::new(Mutex::new(String::new()));
    let writes = Arc::clone(&heard);
    tokio::spawn(async move {
        let _connection = bus;
        while let Some(message) = all.next().await {
            let text = String::from_utf8_lossy(&message.payload);
            let line = format!("{} {text}\n", message.subject);
            writes.lock().expect("not poisoned").push_str(&line);
        }
    });
    Ok(move || heard.lock().expect("not poisoned").clone())
}

/// Commands that are given a password and cannot use it say why, without it.
#[tokio::test]
async fn commands_show_no_passwords() -> anyhow::Result<()> {
    let (tool, scratch, secret) = (Tool::find()?, Scratch::new()?, canary("password"));
    let url = |text: &str| text.replace("SECRET", &secret);
    let broken =
        scratch.write("broken.toml", url("[database]\nurl = \"postgres://u:SECRET@h/d\n"))?;
    let number =
        scratch.write("number.toml", url("[database]\nurl = {a = \"postgres://u:SECRET@h\"}\n"))?;
    let set = |key: &str, value: &str| format!("{key}={}", url(value));
    let postgres = [
        "postgres://u:SECRET@127.0.0.1:1/d",
        "postgres://u:SECRET@127.0.0.1:x/d",
        "postgres://u:SECRET@[::1/d",
        "mysql://u:SECRET@h/d",
        "u:SECRET@h",
        "postgres://u@127.0.0.1:1/d?password=SECRET",
        "postgres://u@127.0.0.1:1/d?nonsense=SECRET",
    ];
    let mut commands: Vec<Vec<String>> = Vec::new();
    let mut add = |line: &str, more: &[String]| {
        let words = line.split_whitespace().map(str::to_owned);
        commands.push(words.chain(more.iter().cloned()).collect());
    };
    for text in postgres {
        add("config show", &["--set".into(), set("database.url", text)]);
        add("config show -o json", &["--set".into(), set("database.url", text)]);
        if text.starts_with("postgres://") && !text.contains("127.0.0.1:1/") {
            // Those that can be read are tried to be reached for half a minute.
            for line in ["migrate", "verify", "token list", "token revoke x"] {
                add(line, &["--database-url".into(), url(text)]);
            }
        }
    }
    for text in [
        "nats://u:SECRET@h:x",
        "nats://SECRET@127.0.0.1:1",
        "nats://a:b@h1,nats://u:SECRET@h2",
        "http://u:SECRET@h",
        "nats://u:SECRET@[h",
    ] {
        add("config show", &["--set".into(), set("nats.url", text)]);
        if text != "nats://SECRET@127.0.0.1:1" && !text.starts_with("nats://a") {
            add("worker run", &["--nats-url".into(), url(text)]);
        }
    }
    for file in [&broken, &number] {
        for line in ["config show", "migrate", "server run", "worker run", "dev"] {
            add(line, &["--config".into(), file.clone()]);
        }
    }
    add("config show", &["--set".into(), set("database.urll", "postgres://u:SECRET@h/d")]);
    let mut wrong = String::new();
    for command in &commands {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        let ended = tool.run(&arguments).await?;
        if (ended.stdout + &ended.stderr).contains(&secret) {
            wrong += &format!("{}\n", command.join(" ").replace(&secret, "SECRET"));
        }
    }
    assert!(wrong.is_empty(), "these show it:\n{wrong}");
    Ok(())
}
