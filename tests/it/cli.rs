//! The program `tasker`: exit codes, what it prints, and the life of `tasker dev`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tasker_tests::{
    Cluster, Dev, Ended, Process, Scratch, Tool, assert_same, example, expected, until,
};

use crate::support::{SOON, ended_members};

/// Runs a client command against a cluster.
async fn client(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Ended> {
    let data_dir = cluster.dev().data_dir().display().to_string();
    let all: Vec<&str> = ["--data-dir", &data_dir].iter().chain(arguments).copied().collect();
    cluster.tool().run(&all).await
}

#[tokio::test]
async fn a_submission_that_waits() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let context = json!({"csv_file_path": example("products.csv")}).to_string();
    let template = "csv_processing/csv_product_inventory_analyzer@1.0.0";
    let submit = ["task", "submit", template, "--context", &context, "--wait", "-o", "json"];
    let ended = client(&cluster, &submit).await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    let task = ended.json()?;
    let keys = ["id", "namespace", "name", "version", "state", "steps"];
    assert!(keys.iter().all(|key| task.get(key).is_some()), "{task}");
    assert_eq!(
        (&task["state"], task["steps"].as_array().map(Vec::len)),
        (&json!("complete"), Some(7))
    );
    let aggregate = |task: &Value| {
        let steps = task["steps"].as_array().into_iter().flatten();
        let mut found = steps.filter(|step| step["name"] == "aggregate_csv_results");
        found.next().map(|step| step["results"]["result"].clone()).unwrap_or_default()
    };
    let expect = &expected("products.expected.json")?["aggregate"];
    assert_same(&aggregate(&task), expect, &["total_inventory_value", "max_price"]);
    // What it prints is what the API says.
    let id = task["id"].as_str().unwrap_or_default();
    let shown = client(&cluster, &["task", "get", id, "-o", "json"]).await?;
    assert_eq!((shown.code, shown.json()?), (0, task.clone()));
    let waited = client(&cluster, &["task", "wait", id, "-o", "ids"]).await?;
    assert_eq!((waited.code, waited.stdout), (0, format!("{id}\n")));
    Ok(())
}

#[tokio::test]
async fn exit_codes() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let scratch = Scratch::new()?;
    let file = scratch.write("context.json", "{\"n\": 3, \"fail\": [0, 1, 2]}\n")?;
    let slow = r#"{"sleep_ms": 3000}"#;
    let nobody = "0190a0a0-0000-7000-8000-000000000000";
    let url = cluster.state()?.url;
    let at_file = format!("@{file}");
    // Arguments, exit code, what standard output and standard error hold.
    let table: Vec<(Vec<&str>, i32, &str, &str)> = vec![
        (vec!["task", "submit", "faulty/fail_permanently", "--wait"], 1, "FAILED_ON_PURPOSE", ""),
        (
            vec!["task", "submit", "faulty/slow_batch", "--context", &at_file, "--wait"],
            1,
            "blocked_by_failures",
            "",
        ),
        (
            vec!["task", "submit", "faulty/sleep", "--context", slow, "--wait", "--timeout", "0.5"],
            5,
            "",
            "it goes on",
        ),
        (vec!["task", "submit", "faulty/none"], 4, "", "TEMPLATE_NOT_FOUND"),
        (vec!["task", "submit", "faulty"], 2, "", "NAMESPACE/NAME"),
        (vec!["task", "submit", "faulty/sleep", "--context", "{"], 2, "", "INVALID_SYNTAX"),
        (vec!["task", "submit", "faulty/sleep", "--context", "[]"], 2, "", "WRONG_TYPE"),
        (vec!["task", "submit", "faulty/sleep", "--context", "@/no/file"], 2, "", "/no/file"),
        (vec!["task", "submit", "faulty/sleep", "--priority", "101"], 2, "", "priority"),
        (vec!["task", "get", nobody], 4, "", "TASK_NOT_FOUND"),
        (vec!["task", "wait", nobody], 4, "", "TASK_NOT_FOUND"),
        (vec!["task", "steps", nobody], 4, "", "TASK_NOT_FOUND"),
        (vec!["task", "why", nobody], 4, "", "TASK_NOT_FOUND"),
        (vec!["step", "get", nobody, "a"], 4, "", "STEP_NOT_FOUND"),
        (vec!["batch", "show", nobody], 4, "", "BATCH_NOT_FOUND"),
        (vec!["batch", "verify", nobody], 4, "", "BATCH_NOT_FOUND"),
        (vec!["task", "cancel", nobody], 4, "", "TASK_NOT_FOUND"),
        (vec!["task", "get", "x"], 2, "", "x"),
        (vec!["template", "show", "faulty/none"], 4, "", "TEMPLATE_NOT_FOUND"),
        (vec!["template", "register", "/no/file"], 2, "", "/no/file"),
        (vec!["--url", &url, "task", "list", "--limit", "1", "-o", "ids"], 0, "-", ""),
        (vec!["task", "list", "--limit", "0"], 2, "", "limit"),
        (vec!["nonsense"], 2, "", "nonsense"),
    ];
    for (arguments, code, stdout, stderr) in table {
        let ended = client(&cluster, &arguments).await?;
        assert_eq!(ended.code, code, "{arguments:?}: {ended:?}");
        assert!(ended.stdout.contains(stdout), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(stderr), "{arguments:?}: {ended:?}");
    }
    Ok(())
}

/// What a batch's members are is compared with what the batch says; ranges with a gap are not sound.
#[tokio::test]
async fn a_batch_with_a_gap_is_not_sound() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let range = |id: &str, start: u32, end: u32| json!({"batch_id": id, "start_cursor": start, "end_cursor": end, "batch_size": end - start});
    for (second, code, found) in [(10, 0, "2 ranges without gap"), (20, 6, "002 leaves a gap")] {
        let outcome = json!({"type": "create_batches", "worker_template_name": "work",
            "worker_count": 2, "total_items": 20,
            "cursor_configs": [range("001", 0, 10), range("002", second, 30)]});
        let context = json!({"result": {"batch_processing_outcome": outcome}}).to_string();
        let submit = ["task", "submit", "faulty/any_outcome", "--context", &context, "--wait"];
        let submitted = client(&cluster, &[submit.as_slice(), &["-o", "ids"]].concat()).await?;
        assert_eq!(submitted.code, 0, "{submitted:?}");
        let task = submitted.stdout.trim_end();
        let listed = client(&cluster, &["batch", "list", task, "-o", "ids"]).await?;
        let batch = listed.stdout.trim_end();
        let shown = client(&cluster, &["batch", "show", batch]).await?;
        assert!(shown.code == 0 && shown.stdout.contains("converged"), "{shown:?}");
        let verified = client(&cluster, &["batch", "verify", batch]).await?;
        assert_eq!(verified.code, code, "{verified:?}");
        assert!(verified.stdout.contains(found), "{verified:?}");
        let why = client(&cluster, &["task", "why", task]).await?;
        assert!(why.code == 0 && why.stdout.contains("nothing is left to do"), "{why:?}");
    }
    // A worker is recorded in a namespace by its next heartbeat there.
    until("a worker is listed", SOON, async || {
        let workers = client(&cluster, &["worker", "list", "--namespace", "faulty"]).await?;
        assert_eq!(workers.code, 0, "{workers:?}");
        Ok(workers.stdout.contains("  live  "))
    })
    .await
}

#[tokio::test]
async fn ids_lead_from_one_command_to_the_next() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let context = r#"{"n": 1200}"#;
    let submit = ["task", "submit", "bench/fan_out", "--context", context, "-o", "ids"];
    let submitted = client(&cluster, &submit).await?;
    assert_eq!(submitted.code, 0, "{submitted:?}");
    let id = submitted.stdout.trim_end();
    let watched = client(&cluster, &["task", "watch", id, "-o", "ids"]).await?;
    assert_eq!((watched.code, watched.stdout), (0, format!("{id}\n")), "{}", watched.stderr);
    let all = client(&cluster, &["task", "steps", id, "--all", "-o", "json"]).await?.json()?;
    let names: Vec<&str> =
        all["steps"].as_array().into_iter().flatten().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!((names.len(), names[0], names[1201]), (1202, "make_ranges", "add_one_1200"));
    let ids = client(&cluster, &["task", "steps", id, "--all", "-o", "ids"]).await?;
    assert_eq!(ids.stdout.lines().count(), 1202);
    let refused = client(&cluster, &["task", "cancel", id]).await?;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("TASK_ENDED"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn broken_templates_are_shown_with_their_lines() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let scratch = Scratch::new()?;
    let bad = "name: a\nnamespace_name: b\nversion: 1.0.0\nstepps: []\nsteps:\n  - name: s\n    \
               handler: {callable: x}\n    dependencies: [t]\n";
    let bad = scratch.write("bad.yaml", bad)?;
    let tool = cluster.tool();
    let lint = tool.run(&["template", "lint", &bad]).await?;
    assert_eq!(lint.code, LINT_FAILED, "{lint:?}");
    let mut lines: Vec<&str> = lint.stdout.lines().collect();
    lines.sort_unstable();
    let [unknown_key, unknown_step] = lines[..] else { panic!("{lint:?}") };
    assert!(unknown_key.starts_with(&format!("{bad}:4: stepps: ")), "{unknown_key}");
    assert!(unknown_key.ends_with("[UNKNOWN_KEY]"), "{unknown_key}");
    assert!(unknown_step.starts_with(&format!("{bad}:8: steps[0].dependencies[0]: ")), "{lint:?}");
    assert!(unknown_step.ends_with("[UNKNOWN_DEPENDENCY]"), "{unknown_step}");
    let json = tool.run(&["template", "lint", &bad, "-o", "json"]).await?;
    let problems = json.json()?["problems"].as_array().cloned().unwrap_or_default();
    assert_eq!((json.code, problems.len()), (LINT_FAILED, 2), "{json:?}");
    let register = client(&cluster, &["template", "register", &bad]).await?;
    assert_eq!(register.code, 2, "{register:?}");
    assert!(register.stderr.contains("line 4: stepps:"), "{register:?}");
    let good = scratch.write("good.yaml", tasker_tests::template("slow_batch")?)?;
    let lint = tool.run(&["template", "lint", &good]).await?;
    assert_eq!((lint.code, lint.stderr.as_str()), (0, ""), "{lint:?}");
    let missing = tool.run(&["template", "lint", "/no/file.yaml"]).await?;
    assert_eq!(missing.code, 2, "{missing:?}");
    Ok(())
}

/// "a check did not pass", as `tasker --help` says.
const LINT_FAILED: i32 = 6;

fn start(tool: &Tool, data_dir: &Path, workers: u32, scratch: &Scratch) -> anyhow::Result<Dev> {
    let arguments = Cluster::arguments(1, workers, scratch.path());
    Dev::in_folder(tool, data_dir, &arguments, scratch.path())
}

/// Stops a `dev` by a signal: within 20 s it and all that belongs to it is gone.
async fn stop(mut dev: Dev, signal: Signal) -> anyhow::Result<()> {
    let pids = dev.state()?.pids.all();
    let processes: Vec<Process> =
        pids.into_iter().map(Process::running).collect::<anyhow::Result<_>>()?;
    let begun = Instant::now();
    let status = dev.stop(signal)?;
    assert!(status.success(), "{signal}: {status} {}", dev.log_tails());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let left: Vec<_> = processes.into_iter().filter(|process| process.is_alive()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!dev.data_dir().join("dev.json").exists(), "dev.json is left");
    Ok(())
}

async fn tasker(tool: &Tool, dev: &Dev, arguments: &[&str]) -> anyhow::Result<Ended> {
    let data_dir = dev.data_dir().display().to_string();
    let all: Vec<&str> = ["--data-dir", &data_dir].iter().chain(arguments).copied().collect();
    tool.run(&all).await
}

#[tokio::test]
async fn a_later_dev_continues_where_the_first_stopped() -> anyhow::Result<()> {
    const N: u64 = 400;
    let (tool, scratch) = (Tool::find()?, Scratch::new()?);
    let data_dir = scratch.path().join("data");

    // The first is stopped in the middle of a batch.
    let dev = start(&tool, &data_dir, 1, &scratch)?;
    let second = tool.run(&["dev", "--data-dir", &data_dir.display().to_string()]).await?;
    assert_eq!(second.code, 2, "{second:?}");
    let pid = dev.state()?.pids.dev.to_string();
    assert!(second.stderr.contains(&pid), "{second:?}");
    assert!(second.stderr.contains(&data_dir.display().to_string()), "{second:?}");
    let slow_batch = scratch.write("slow_batch.yaml", tasker_tests::template("slow_batch")?)?;
    let registered = tasker(&tool, &dev, &["template", "register", &slow_batch]).await?;
    assert_eq!(registered.code, 0, "{registered:?}");
    let context = json!({"n": N, "sleep_ms": 400}).to_string();
    let submit = ["task", "submit", "faulty/slow_batch", "--context", &context, "-o", "ids"];
    let id = tasker(&tool, &dev, &submit).await?.stdout.trim_end().to_owned();
    let get = ["task", "get", &id, "-o", "json"];
    until("some members have ended", SOON, async || {
        Ok(ended_members(&tasker(&tool, &dev, &get).await?.json()?) >= 20)
    })
    .await?;
    stop(dev, Signal::SIGTERM).await?;

    // The second has no worker: what is submitted has its first step and no more.
    let dev = start(&tool, &data_dir, 0, &scratch)?;
    let task = tasker(&tool, &dev, &get).await?.json()?;
    assert!(matches!(task["state"].as_str(), Some("pending" | "in_progress")), "{task}");
    let done = ended_members(&task);
    assert!((20..N).contains(&done), "{task}");
    let context = json!({"csv_file_path": example("products.csv")}).to_string();
    let template = "csv_processing/csv_product_inventory_analyzer";
    let submit = ["task", "submit", template, "--context", &context, "-o", "ids"];
    let products = tasker(&tool, &dev, &submit).await?.stdout.trim_end().to_owned();
    let get_products = ["task", "get", &products, "-o", "json"];
    let task = tasker(&tool, &dev, &get_products).await?.json()?;
    let steps = task["steps"].as_array().context("steps")?;
    let first: Vec<_> = steps.iter().map(|step| (&step["name"], &step["state"])).collect();
    assert_eq!(first, [(&json!("analyze_csv"), &json!("enqueued"))]);
    stop(dev, Signal::SIGINT).await?;

    // The third finishes both.
    let dev = start(&tool, &data_dir, 2, &scratch)?;
    let wait = |id| ["task", "wait", id, "--timeout", "60", "-o", "json"];
    let ended = tasker(&tool, &dev, &wait(&id)).await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    let result = |task: Value, name: &str| {
        let steps = task["steps"].as_array().into_iter().flatten();
        let mut found = steps.filter(|step| step["name"] == name);
        found.next().map(|step| step["results"]["result"].clone()).unwrap_or_default()
    };
    let expect = json!({"sum": N * (N - 1) / 2, "succeeded": N, "failed": 0, "worker_count": N});
    assert_same(&result(ended.json()?, "sum_slowly"), &expect, &[]);
    let ended = tasker(&tool, &dev, &wait(&products)).await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    let expect = &expected("products.expected.json")?["aggregate"];
    let aggregate = result(ended.json()?, "aggregate_csv_results");
    assert_same(&aggregate, expect, &["total_inventory_value", "max_price"]);
    stop(dev, Signal::SIGTERM).await
}

#[tokio::test]
async fn a_killed_dev_leaves_nothing_running() -> anyhow::Result<()> {
    let (tool, scratch) = (Tool::find()?, Scratch::new()?);
    let data_dir = scratch.path().join("data");
    let dev = start(&tool, &data_dir, 1, &scratch)?;
    let pids = dev.state()?.pids.all();
    let processes: Vec<Process> =
        pids.into_iter().map(Process::running).collect::<anyhow::Result<_>>()?;
    dev.process()?.signal(Signal::SIGKILL)?;
    until("all of its processes have ended", Duration::from_secs(20), async || {
        Ok(!processes.iter().any(|process| process.is_alive()))
    })
    .await?;
    drop(dev);
    let told = tool.run(&["--data-dir", &data_dir.display().to_string(), "task", "list"]).await?;
    assert_eq!(told.code, 2, "{told:?}");
    // The folder can be used again at once.
    let dev = start(&tool, &data_dir, 1, &scratch)?;
    let listed = tasker(&tool, &dev, &["template", "list", "-o", "ids"]).await?;
    ensure!(listed.code == 0, "{listed:?}");
    stop(dev, Signal::SIGTERM).await
}

#[tokio::test]
async fn settings_that_make_no_sense() -> anyhow::Result<()> {
    let (tool, scratch) = (Tool::find()?, Scratch::new()?);
    let data_dir = scratch.path().join("data").display().to_string();
    let unknown = scratch.write("unknown.toml", "[worker]\nslotz = 3\n")?;
    let table: [(&[&str], &str); 8] = [
        (&["--workers", "65"], "65"),
        (&["--orchestrators", "0"], "0"),
        (&["--slots", "0"], "0"),
        (&["--http", "0.0.0.0:8080"], "loopback"),
        (&["--http", "127.0.0.1"], "127.0.0.1"),
        (&["--data-root", "/does/not/exist"], "/does/not/exist"),
        (&["--config", &unknown], "slotz"),
        (&["--config", "/does/not/exist.toml"], "/does/not/exist.toml"),
    ];
    for (arguments, says) in table {
        let all: Vec<&str> =
            ["dev", "--data-dir", &data_dir].iter().chain(arguments).copied().collect();
        let ended = tool.run(&all).await?;
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(says), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
    Ok(())
}
