//! Templates through the API: broken ones are refused with all that is wrong, versions are kept.

use std::fs;

use anyhow::Context;
use serde_json::{Value, json};
use tasker_messages::code;
use tasker_tests::{Cluster, assert_same, repository};

use crate::support::SOON;

/// `code field line` of each problem as the corpus notes it; `-` stands for nothing.
fn found(problems: &Value) -> Vec<String> {
    let row = |problem: &Value| {
        let text = |key: &str| problem[key].as_str().unwrap_or("-").to_owned();
        let line = problem["line"].as_u64().map_or("-".to_owned(), |line| line.to_string());
        format!("{} {} {line}", text("code"), text("field"))
    };
    problems.as_array().into_iter().flatten().map(row).collect()
}

#[tokio::test]
async fn broken_templates() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let folder = repository().join("workflow/corpus/templates");
    let mut wrong = String::new();
    let mut all = 0;
    for file in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = file?.path();
        let source = fs::read(&path)?;
        let text = String::from_utf8_lossy(&source).into_owned();
        let expect: Vec<&str> =
            text.lines().map_while(|line| line.strip_prefix("# expect: ")).collect();
        let answer = api.post_template(&source).await?;
        let first = expect.first().and_then(|row| row.split(' ').next()).unwrap_or_default();
        let status = if first == code::TOO_LARGE { 413 } else { 400 };
        let got = found(&answer.body["problems"]);
        let is_same = (answer.status, answer.code()) == (status, first) && got == expect;
        if !is_same || answer.content_type != "application/problem+json" {
            let name = path.display();
            wrong +=
                &format!("{name}\n got    {} {got:?}\n expect {status} {expect:?}\n", answer.text);
        }
        all += 1;
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(all >= 60, "only {all} broken templates");
    // None of them was stored.
    let stored = api.read("/v1/templates?namespace=broken").await?;
    assert_eq!(stored, json!({"templates": []}));
    Ok(())
}

#[tokio::test]
async fn bodies_that_are_no_template() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let long = format!("description: \"{}\"\n", "x".repeat(300_000));
    let deep = format!("description: {}\n", "[".repeat(100_000));
    let table: [(&[u8], u16, &str); 5] = [
        (b"", 400, code::INVALID_SYNTAX),
        (b"\xff\xfe", 400, code::INVALID_ENCODING),
        (b"name: \0\n", 400, code::INVALID_ENCODING),
        (deep.as_bytes(), 400, code::TOO_DEEP),
        (long.as_bytes(), 413, code::TOO_LARGE),
    ];
    for (body, status, code) in table {
        let answer = api.post_template(body).await?;
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!((answer.status, answer.code()), (status, code), "{shown}: {}", answer.text);
        assert_eq!(answer.content_type, "application/problem+json", "{shown}");
    }
    Ok(())
}

/// A client that is still sending when the answer is decided must get to read it.
#[tokio::test]
async fn a_body_over_the_limit_is_answered() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let large = vec![b'x'; 4_000_000];
    for path in ["/v1/templates", "/v1/tasks"] {
        for n in 0..10 {
            let answer = api.send("POST", path, &[], large.clone()).await;
            let answer = answer.with_context(|| format!("{path}, try {n}"))?;
            assert_eq!((answer.status, answer.code()), (413, code::TOO_LARGE), "{}", answer.text);
        }
    }
    Ok(())
}

fn versioned(version: &str, callable: &str) -> String {
    format!(
        "name: versioned\nnamespace_name: versions\nversion: {version}\ndescription: of {version}\n\
         steps:\n  - name: only\n    handler: {{callable: {callable}}}\n"
    )
}

#[tokio::test]
async fn versions_are_kept() -> anyhow::Result<()> {
    const OK: &str = "faulty.return_context";
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let post = async |version: &str, callable: &str| {
        let answer = api.post_template(versioned(version, callable).as_bytes()).await?;
        anyhow::Ok((answer.status, answer.code().to_owned()))
    };
    // Registered again by a second shared cluster at most.
    for version in ["1.0.0", "1.10.0", "1.9.0"] {
        assert_eq!(post(version, OK).await?, (201, String::new()), "{version}");
        assert_eq!(post(version, OK).await?, (200, String::new()), "{version} again");
    }
    let conflict = (409, code::TEMPLATE_CONFLICT.to_owned());
    assert_eq!(post("1.9.0", "faulty.panic").await?, conflict);
    let listed = api.read("/v1/templates?namespace=versions").await?;
    let versions: Vec<&Value> =
        listed["templates"].as_array().into_iter().flatten().map(|t| &t["version"]).collect();
    assert_eq!(versions, ["1.0.0", "1.9.0", "1.10.0"]);
    let newest = api.read("/v1/templates/versions/versioned").await?;
    assert_eq!(
        (&newest["version"], &newest["source"]),
        (&json!("1.10.0"), &json!(versioned("1.10.0", OK)))
    );
    let old = api.read("/v1/templates/versions/versioned?version=1.0.0").await?;
    assert_eq!(
        (&old["description"], &old["source"]),
        (&json!("of 1.0.0"), &json!(versioned("1.0.0", OK)))
    );
    // A task runs the version it asks for, else the newest.
    for (asked, expect) in [(None, "1.10.0"), (Some("1.0.0"), "1.0.0"), (Some("1.9.0"), "1.9.0")] {
        let mut document =
            json!({"namespace": "versions", "name": "versioned", "context": {"result": {"a": 1}}});
        if let Some(version) = asked {
            document["version"] = version.into();
        }
        let answer = api.post_task(&document, None).await?;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let task = api.wait(answer.body["id"].as_str().unwrap_or_default(), SOON).await?;
        assert_eq!((task.state(), &task.view["version"]), ("complete", &json!(expect)));
        assert_same(task.result("only")?, &json!({"a": 1}), &[]);
    }
    Ok(())
}
