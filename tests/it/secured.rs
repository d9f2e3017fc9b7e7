//! A cluster with users and TLS, as a deployment should have it.

use serde_json::json;
use tasker_tests::Secured;

use crate::support::SOON;

#[tokio::test]
async fn a_cluster_works_under_users_and_tls() -> anyhow::Result<()> {
    let secured = Secured::start("tests/certificates/root.pem").await?;
    let cluster = secured.cluster();
    let api = cluster.api()?;
    let task = api.run("bench", "fan_out", json!({"n": 500}), SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let connections = cluster
        .database()?
        .row(
            "select count(*) as all, count(*) filter (where ssl) as encrypted
             from pg_stat_ssl join pg_stat_activity using (pid)
             where application_name like 'tasker %'",
        )
        .await?;
    assert!(connections["all"].as_i64() > Some(0), "{connections}");
    assert_eq!(connections["all"], connections["encrypted"], "{connections}");
    // Nobody is heard in the clear: this client does not speak TLS.
    assert!(cluster.wire().await?.request("tasker.task.get.bench", &[], b"{}").await.is_err());
    Ok(())
}

#[tokio::test]
async fn servers_that_nobody_vouches_for_are_not_spoken_to() {
    // Of the same form, and it has not signed the certificate of these servers.
    let other = "sdk/rust/src/api/tests/certificates/root.pem";
    let error = Secured::start(other).await.expect_err("another root");
    assert!(format!("{error:#}").contains("invalid peer certificate"), "{error:#}");
}

/// Every test of a whole cluster runs under the users; here is that they are there.
#[tokio::test]
async fn nodes_of_the_tests_are_users() -> anyhow::Result<()> {
    let cluster = tasker_tests::Cluster::shared().await?;
    let text = std::fs::read_to_string(cluster.dev().data_dir().join("nats.conf"))?;
    for user in ["orchestrator", "worker", "submitter", "monitor"] {
        assert!(text.contains(&format!("user: \"{user}\"")), "{user}");
    }
    Ok(())
}
