use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;
use tasker_messages::code;

use super::*;
use crate::event::EventCondition;
use crate::retry::Backoff;

/// A template of three steps with a batch, and everything that may be written.
const FULL: &str = r#"---
# A comment, which is nothing special.
name: full
namespace_name: tests
version: 1.2.3-rc.1
description: >
  folded
  text
metadata: {author: somebody, tags: [a, "b"], documentation_url:}
task_handler: {callable: Any::Thing, initialization: {a: 1}}
steps:
  - name: split
    step_type: batchable
    description: "splits"
    handler:
      callable: examples.split
      method: call
      initialization: {size: 10, ratio: 0.5, hex: 0x10, none: ~, list: [true, on, "1"], "quoted key": x}
    timeout_seconds: 1.5
    system_dependency: warehouse
  - name: process
    type: batch_worker
    depends_on: [split]
    handler: {callable: examples.process, queue: heavy}
    retry: {retryable: true, max_attempts: 5, backoff: fibonacci, backoff_base_ms: 10, max_backoff_ms: 500, jitter: false}
    batch_config:
      batch_size: 200
      max_workers: 5
      cursor_field: row
      worker_template: process
      failure_strategy: continue_on_failure
  - name: join
    type: deferred_convergence
    dependencies:
      - process
    handler: {callable: examples.join}
    retry: {backoff_base_ms: 120000}
    timeout_seconds: 604800
"#;

/// `code field line` of each problem; `-` stands for nothing.
fn found(source: &[u8]) -> Vec<String> {
    let problems = Template::parse(source).err().unwrap_or_default();
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let row = |p: Problem| {
        let line = p.line.map_or(String::new(), |line| line.to_string());
        format!("{} {} {}", p.code, dash(p.field), dash(line))
    };
    problems.into_iter().map(row).collect()
}

#[test]
fn broken_templates() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/templates");
    let mut files = 0;
    let mut wrong = String::new();
    for file in fs::read_dir(folder).expect("the corpus") {
        let path = file.expect("a file").path();
        let source = fs::read_to_string(&path).expect("a template");
        let expect: Vec<&str> =
            source.lines().map_while(|line| line.strip_prefix("# expect: ")).collect();
        assert!(!expect.is_empty(), "{} expects nothing", path.display());
        let got = found(source.as_bytes());
        if got != expect {
            let _ = writeln!(wrong, "{}\n expect {expect:?}\n got    {got:?}", path.display());
        }
        files += 1;
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(files >= 130, "only {files} broken templates");
}

#[test]
fn broken_bytes() {
    fn check(source: impl AsRef<[u8]>, expect: &[&str]) {
        assert_eq!(found(source.as_ref()), expect);
    }
    let utf16: Vec<u8> = FULL.encode_utf16().flat_map(u16::to_le_bytes).collect();
    check([&[0xff, 0xfe][..], &utf16].concat(), &["INVALID_ENCODING - -"]);
    check(&utf16, &["INVALID_ENCODING - 1"]);
    check(b"\xfe\xff\0n\0a", &["INVALID_ENCODING - -"]);
    check(b"name: a\nb: \xff\n", &["INVALID_ENCODING - 2"]);
    check(b"name: a\nb: c\nd: \0\n", &["INVALID_ENCODING - 3"]);
    check(b"name: \"\x01\"\n", &["INVALID_SYNTAX - 1"]);
    check(format!("description: \"{}\"\n", "x".repeat(1 << 20)), &["TOO_LARGE - -"]);
    check(format!("description: {}\n", "[".repeat(200_000)), &["TOO_DEEP - 1"]);
    check("- ".repeat(100_000), &["TOO_DEEP - 1"]);
    check("? ".repeat(100_000), &["INVALID_SYNTAX - 1"]);
    check("{".repeat(100_000), &["TOO_DEEP - 1"]);
}

/// Documents as large as allowed that make somebody's loop quadratic.
#[test]
fn hostile_sizes_are_read_in_time() {
    let head = "name: a\nnamespace_name: b\nversion: 1.0.0\n";
    let mut steps = format!("{head}steps:\n");
    let mut twins = steps.clone();
    let mut keys = head.to_owned();
    for n in 0.. {
        let _ = writeln!(steps, "- {{name: s{n}, depends_on: [x{n}]}}");
        let _ = writeln!(twins, "- {{name: {}}}", "s".repeat(90));
        let _ = writeln!(keys, "k{n}: [[[[[[x]]]]]]");
        if steps.len().max(twins.len()).max(keys.len()) > Template::MAX_BYTES - 200 {
            break;
        }
    }
    let many = format!("{head}steps:\n{}", "-\n".repeat(Template::MAX_STEPS + 1));
    for source in [steps, twins, keys, many] {
        let started = std::time::Instant::now();
        let problems = found(source.as_bytes());
        assert!((1..=200).contains(&problems.len()));
        // Far above what it takes, far below what a quadratic loop would.
        assert!(started.elapsed().as_secs() < 10, "{}", &source[..100]);
    }
}

#[test]
fn limits_of_steps() {
    let template = |steps: usize| {
        let mut source = "name: a\nnamespace_name: b\nversion: 1.0.0\nsteps:\n".to_owned();
        (0..steps).for_each(|_| source.push_str("-\n"));
        found(source.as_bytes())
    };
    assert_eq!(template(Template::MAX_STEPS + 1), ["TOO_LARGE steps 5"]);
    assert_eq!(template(Template::MAX_STEPS).len(), 200);
}

#[test]
fn a_full_template() {
    let template = Template::parse(FULL.as_bytes()).expect("valid");
    assert_eq!((template.namespace.as_str(), template.name.as_str()), ("tests", "full"));
    assert_eq!(template.version, "1.2.3-rc.1");
    assert_eq!(template.description.as_deref(), Some("folded text\n"));
    let [split, process, join] = &template.steps[..] else { panic!("three steps") };
    assert_eq!(split.handler.callable, "examples.split");
    assert_eq!(split.handler.queue.as_str(), "default");
    assert_eq!(
        split.handler.config,
        json!({"size": 10, "ratio": 0.5, "hex": 16, "none": null, "list": [true, "on", "1"],
            "quoted key": "x"})
    );
    assert_eq!(split.timeout_ms, Some(1500));
    assert_eq!(split.retry, RetryPolicy::default());
    let batch = split.batch.as_ref().expect("moved from its worker");
    assert_eq!((batch.batch_size, batch.max_workers), (Some(200), Some(5)));
    assert_eq!(batch.cursor_field, "row");
    assert_eq!(batch.worker_template.as_ref().map(StepName::as_str), Some("process"));
    assert_eq!(process.batch, None);
    assert_eq!(process.handler.queue.as_str(), "heavy");
    assert_eq!(process.handler.config, Value::Null);
    let expect = RetryPolicy {
        retryable: true,
        max_attempts: 5,
        backoff: Backoff::Fibonacci,
        multiplier: 2.0,
        base_ms: 10,
        max_ms: 500,
        jitter: false,
    };
    assert_eq!(process.retry, expect);
    assert_eq!((join.retry.base_ms, join.retry.max_ms), (120_000, 120_000));
    assert_eq!(join.timeout_ms, Some(604_800_000));
}

#[test]
fn the_older_spelling_of_retries() {
    let retry = |keys: &str| {
        let source = format!(
            "name: a\nnamespace_name: b\nversion: 1.0.0\n\
             steps: [{{name: a, handler: {{callable: x}}, {keys}}}]"
        );
        Template::parse(source.as_bytes()).expect("valid").steps.remove(0).retry
    };
    let default = RetryPolicy::default();
    for (keys, expect) in [
        ("lifecycle: {}", default.clone()),
        ("lifecycle: {max_retries: 3}", RetryPolicy { max_attempts: 4, ..default.clone() }),
        ("lifecycle: {max_retries: 0}", RetryPolicy { max_attempts: 1, ..default.clone() }),
        (
            "retry: {jitter: false, max_attempts: 5}, lifecycle: {backoff_multiplier: 1.5}",
            RetryPolicy { max_attempts: 5, multiplier: 1.5, jitter: false, ..default.clone() },
        ),
        (
            "retry: {backoff: linear}, lifecycle: {max_retries: 1}",
            RetryPolicy { max_attempts: 2, backoff: Backoff::Linear, ..default.clone() },
        ),
    ] {
        assert_eq!(retry(keys), expect, "{keys}");
    }
}

#[test]
fn other_spellings_of_the_same() {
    let expect = Template::parse(FULL.as_bytes()).expect("valid");
    let with_bom = format!("\u{feff}{FULL}");
    let with_crlf = FULL.replace('\n', "\r\n");
    for source in [with_bom, with_crlf] {
        assert_eq!(Template::parse(source.as_bytes()).expect("valid"), expect);
    }
}

#[test]
fn messages_say_what_to_do() {
    for (source, expect) in [
        ("descriptoin: x", "unknown key \"descriptoin\"; did you mean `description`?"),
        ("version: 1.0", "MAJOR.MINOR.PATCH with an optional pre-release, such as \"1.0.0\""),
        ("name: 5", "must be a text, not a number; YAML reads \"5\" so: put it in quotes"),
        ("steps: a", "must be a list, not a text; write one item as `[item]`"),
        (
            "steps: [{name: a, publishes_events: [{name: x, condition: retryable_failur}]}]",
            "not \"retryable_failur\"; did you mean `retryable_failure`?",
        ),
        (
            "steps: [{name: a, publishes_events: [{name: x, conditon: failure}]}]",
            "unknown key \"conditon\"; did you mean `condition`?",
        ),
        (
            "steps: [{name: a, publishes_events: [{name: x}, {name: x}]}]",
            "the step publishes \"x\" twice; remove one",
        ),
        (
            "steps: [{name: a, depends_on: [b]}, {name: b, depends_on: [a]}]",
            "each for the next: a -> b -> a",
        ),
        ("steps: [{name: extract}, {name: b, depends_on: [extrct]}]", "did you mean `extract`?"),
        (
            "steps: [{name: a, retry: {max_attempts: \"3\"}}]",
            "an integer, not a text; remove the quotes",
        ),
    ] {
        let problems = Template::parse(source.as_bytes()).expect_err("broken");
        assert!(problems.iter().any(|p| p.message.contains(expect)), "{source}: {problems:#?}");
    }
}

#[test]
fn an_error_shows_no_control_characters() {
    let source = "\"\\e[2J\\r\": 1\nname: \"\\e[2J\"\nsteps: [{name: x, depends_on: [\"\\a\"]}]\n";
    for problem in Template::parse(source.as_bytes()).expect_err("broken") {
        assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
    }
    assert!(found(source.as_bytes()).iter().any(|row| row.starts_with(code::UNKNOWN_KEY)));
}

const ENVIRONMENTS: &str = "
name: a
namespace_name: b
version: 1.0.0
environments:
  production:
    steps:
      - name: slow
        handler: {initialization: {pool: {size: 50}, url: null, list: [3]}}
        retry: {max_attempts: 9}
      - name: ALL
        handler: {initialization: {pool: {size: 20, wait: 1}, level: all}}
        timeout_seconds: 7
        retry: {max_attempts: 2, backoff: linear}
  staging:
    steps: [{name: slow, timeout_seconds: 1}]
  empty: {}
steps:
  - name: slow
    handler: {callable: x, initialization: {pool: {size: 5, kind: k}, url: u, list: [1, 2]}}
    timeout_seconds: 60
    lifecycle: {max_retries: 4, backoff_multiplier: 3}
  - name: quick
    handler: {callable: y}
";

#[test]
fn environments_are_laid_over_the_steps() {
    let steps = |environment: Option<&str>| {
        let template = Template::parse_in(ENVIRONMENTS.as_bytes(), environment).expect("valid");
        let [slow, quick] = <[StepTemplate; 2]>::try_from(template.steps).expect("two steps");
        (slow, quick)
    };
    let (slow, quick) = steps(None);
    assert_eq!(slow.handler.config["pool"], json!({"size": 5, "kind": "k"}));
    assert_eq!((slow.timeout_ms, quick.timeout_ms), (Some(60_000), None));
    assert_eq!((slow.retry.max_attempts, slow.retry.multiplier), (5, 3.0));
    for same in ["empty", "elsewhere"] {
        assert_eq!(steps(Some(same)), (slow.clone(), quick.clone()), "{same}");
    }
    let staging = StepTemplate { timeout_ms: Some(1_000), ..slow };
    assert_eq!(steps(Some("staging")), (staging, quick));
    let (slow, quick) = steps(Some("production"));
    let expect = json!({"pool": {"size": 50, "wait": 1, "kind": "k"}, "url": null, "list": [3],
        "level": "all"});
    assert_eq!(slow.handler.config, expect);
    assert_eq!(quick.handler.config, json!({"pool": {"size": 20, "wait": 1}, "level": "all"}));
    assert_eq!((slow.timeout_ms, quick.timeout_ms), (Some(7_000), Some(7_000)));
    assert_eq!((slow.retry.max_attempts, quick.retry.max_attempts), (9, 2));
    assert_eq!((slow.retry.backoff, quick.retry.backoff), (Backoff::Linear, Backoff::Linear));
}

#[test]
fn handlers_name_their_entry_point() {
    let source = "name: a\nnamespace_name: b\nversion: 1.0.0\nsteps:\n\
                  - {name: a, handler: {callable: x}}\n\
                  - {name: b, handler: {callable: x, method: other, resolver: aside}}\n";
    let template = Template::parse(source.as_bytes()).expect("valid");
    let named = |n: usize| {
        let handler = &template.steps[n].handler;
        (handler.method.as_str(), handler.resolver.as_deref())
    };
    assert_eq!((named(0), named(1)), (("call", None), ("other", Some("aside"))));
}

#[test]
fn events_are_kept_with_their_step() {
    let source = "name: a\nnamespace_name: b\nversion: 1.0.0\nsteps:\n\
                  - {name: a, handler: {callable: x}}\n\
                  - name: b\n  handler: {callable: x}\n  publishes_events:\n\
                  \x20   - name: order.charged\n\
                  \x20   - {name: order_lost, condition: failure, schema: {required: [code]}}\n";
    let template = Template::parse(source.as_bytes()).expect("valid");
    let [silent, loud] = &template.steps[..] else { panic!("two steps") };
    assert_eq!(silent.events, []);
    let [charged, lost] = &loud.events[..] else { panic!("two events") };
    assert_eq!(
        (charged.name.as_str(), charged.condition),
        ("order.charged", EventCondition::Success)
    );
    assert_eq!((lost.name.as_str(), lost.condition), ("order_lost", EventCondition::Failure));
    assert!(charged.schema.is_none() && lost.schema.is_some());
}

/// Many schemas take no longer than they should, and share one budget of patterns.
#[test]
fn many_schemas() {
    let template = |schema: &str| {
        let mut source = "name: a\nnamespace_name: b\nversion: 1.0.0\nsteps:\n".to_owned();
        for n in 0.. {
            let _ = writeln!(
                source,
                "- {{name: s{n}, handler: {{callable: x}}, result_schema: {schema}}}"
            );
            if source.len() > Template::MAX_BYTES - 200 {
                return source;
            }
        }
        source
    };
    let started = std::time::Instant::now();
    assert!(Template::parse(template("{type: object}").as_bytes()).is_ok());
    let problems = found(template("{pattern: \"^[a-z]{1,200}$\"}").as_bytes());
    assert_eq!(problems.len(), 200);
    assert_eq!(problems[0], "TOO_LARGE steps[256].result_schema 261");
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
