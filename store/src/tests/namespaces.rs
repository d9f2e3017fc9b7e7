//! Namespaces: how they come to be, their limits, and who set them.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use tasker_messages::{Namespace, NamespaceView, NodeId, Queue, Scope, SetNamespace, StepKind};
use uuid::Uuid;

use super::{World, ns};
use crate::NamespaceLimits;

fn set(document: serde_json::Value) -> SetNamespace {
    serde_json::from_value(document).expect("a request")
}

fn queue(name: &str) -> Queue {
    Queue::new(name).expect("a name")
}

impl World {
    async fn set(&self, name: &Namespace, document: serde_json::Value) -> NamespaceView {
        let done = self.store.set_namespace(name, &set(document), "ops").await;
        done.expect("set").expect("there")
    }

    async fn open_tasks(&self, up_to: u32) -> u32 {
        let asked = HashMap::from([(ns(), up_to)]);
        self.store.count_open_tasks(&asked).await.expect("counted")[&ns()]
    }
}

#[sqlx::test]
async fn a_namespace_comes_with_its_first_template(pool: PgPool) {
    let world = World::new(pool).await;
    let page = world.store.list_namespaces(&Scope::All, None, 10).await.expect("listed");
    let names: Vec<&str> = page.namespaces.iter().map(|n| n.name.as_str()).collect();
    assert_eq!((names.as_slice(), page.next), (&["tests"][..], None));
    assert_eq!(page.namespaces[0].max_open_tasks, None);
    assert_eq!(world.store.load_limits().await.expect("loaded"), HashMap::new());
    // The same template again, or one of a namespace whose limits were set before, changes nothing.
    world.set(&ns(), json!({"max_open_tasks": 7, "reason": "r"})).await;
    let again = world.store.register_template(world.template_id, &world.template, "x").await;
    assert!(!again.expect("found").created);
    let page = world.store.list_namespaces(&Scope::All, None, 10).await.expect("listed");
    assert_eq!(page.namespaces[0].max_open_tasks, Some(7));
}

#[sqlx::test]
async fn limits_are_set_kept_and_removed(pool: PgPool) {
    let world = World::new(pool).await;
    let etl = Namespace::new("etl").expect("a name");
    let first = world
        .set(
            &etl,
            json!({"description": "nightly", "max_open_tasks": 5, "reason": "too many",
                "queues": {"default": {"max_running": 3}, "gpu": {"max_running": 1}}}),
        )
        .await;
    assert_eq!((first.description.as_deref(), first.max_open_tasks), (Some("nightly"), Some(5)));
    assert_eq!((first.queues.len(), first.queues[&queue("gpu")].max_running), (2, 1));
    let limits = world.store.load_limits().await.expect("loaded");
    let expect = NamespaceLimits {
        max_open_tasks: Some(5),
        max_running: None,
        queues: [(queue("default"), 3), (queue("gpu"), 1)].into(),
    };
    assert_eq!(limits, [(etl.clone(), expect)].into());
    assert_eq!(world.store.limits_of(&etl).await.expect("read").queues.len(), 2);
    let other = world.store.limits_of(&ns()).await.expect("read");
    assert_eq!(other, NamespaceLimits::default());

    // What is left out stays.
    let same = world.set(&etl, json!({"reason": "r"})).await;
    assert_eq!(same, first);
    let queues = json!({"default": {"max_running": 9}, "gpu": {"max_running": null}, "other": {}});
    let second = world.set(&etl, json!({"reason": "r", "queues": queues})).await;
    assert_eq!((second.max_open_tasks, second.queues.len()), (Some(5), 1));
    assert_eq!(second.queues[&queue("default")].max_running, 9);

    let none = json!({"reason": "r", "max_open_tasks": null, "description": null,
        "queues": {"default": {"max_running": null}}});
    let bare = world.set(&etl, none).await;
    assert_eq!((bare.description, bare.max_open_tasks, bare.queues.len()), (None, None, 0));
    assert_eq!(world.store.load_limits().await.expect("loaded"), HashMap::new());

    let page = world.store.list_namespaces(&Scope::All, None, 1).await.expect("listed");
    assert_eq!((page.namespaces.len(), page.next.as_ref()), (1, Some(&etl)));
    let page =
        world.store.list_namespaces(&Scope::All, page.next.as_ref(), 1).await.expect("listed");
    assert_eq!(page.namespaces[0].name, ns());

    let audited = "select count(*) from tasker.admin_actions
                   where action = 'set_namespace' and namespace = 'etl' and principal = 'ops'";
    assert_eq!(world.count(audited).await, 4);
    let said = "select count(*) from tasker.admin_actions where reason =
                'description, max_open_tasks 5, max_running of default 3, max_running of gpu 1: too many'";
    assert_eq!(world.count(said).await, 1);
}

#[sqlx::test]
async fn the_limit_of_a_namespace_is_one_nodes_to_share(pool: PgPool) {
    let world = World::new(pool).await;
    let [one, other] = [(); 2].map(|()| NodeId::from_uuid(Uuid::now_v7()));
    let lease = Duration::from_secs(60);
    let claim = async |node, lease| {
        let claimed = world.store.claim_shares(node, lease).await.expect("claimed");
        claimed.into_iter().map(|(name, most)| format!("{name} {most}")).collect::<Vec<_>>()
    };
    assert_eq!(claim(one, lease).await, [""; 0], "there is no limit");
    let view = world.set(&ns(), json!({"max_running": 8, "reason": "r"})).await;
    assert_eq!((view.max_running, view.max_open_tasks, view.queues.len()), (Some(8), None, 0));
    let limits = world.store.limits_of(&ns()).await.expect("read");
    assert_eq!((limits.max_running, limits.max_open_tasks), (Some(8), None));
    assert_eq!(claim(one, lease).await, ["tests 8"]);
    assert_eq!(claim(other, lease).await, [""; 0]);
    world.set(&ns(), json!({"max_running": 9, "reason": "r"})).await;
    assert_eq!(claim(one, Duration::ZERO).await, ["tests 9"]);
    // The lease of the first has run out.
    assert_eq!(claim(other, lease).await, ["tests 9"]);
    assert_eq!(claim(one, lease).await, [""; 0]);
    world.set(&ns(), json!({"max_running": null, "reason": "r"})).await;
    assert_eq!(claim(other, lease).await, [""; 0]);
    assert_eq!(world.store.load_limits().await.expect("loaded"), HashMap::new());
    let said = "select count(*) from tasker.admin_actions where reason = 'max_running 8: r'";
    assert_eq!(world.count(said).await, 1);
}

#[sqlx::test]
async fn open_tasks_are_counted_as_far_as_asked(pool: PgPool) {
    let world = World::new(pool).await;
    assert_eq!(world.open_tasks(9).await, 0);
    for _ in 0..4 {
        world.submit().await;
    }
    assert_eq!(world.open_tasks(9).await, 4);
    assert_eq!(world.open_tasks(3).await, 3);
    let page = world.store.list_namespaces(&Scope::All, None, 10).await.expect("listed");
    assert_eq!(page.namespaces[0].open_tasks, 4);
    let task = world.submit().await;
    world.store.cancel_task(task.id, "ops", None).await.expect("cancelled");
    assert_eq!(world.open_tasks(9).await, 4, "an ended task is not open");
    // Running is open.
    let task = world.submit().await;
    world.succeed(task.step_ids[0], StepKind::Standard).await;
    assert_eq!(world.open_tasks(9).await, 5);
}

#[sqlx::test]
async fn keys_find_their_tasks_before_anything_is_stored(pool: PgPool) {
    let world = World::new(pool).await;
    let stored = world.new_task(Some("a"), 1);
    world.store.insert_tasks(std::slice::from_ref(&stored)).await.expect("stored");
    // Another request under the key is known as well: it is refused as a conflict.
    let tasks =
        [world.new_task(Some("a"), 1), world.new_task(None, 1), world.new_task(Some("b"), 1)];
    let other = world.new_task(Some("a"), 2);
    let asked: Vec<_> = tasks.iter().chain([&other]).collect();
    let known = world.store.find_known_tasks(&asked).await.expect("looked up");
    assert_eq!(known, [tasks[0].id, other.id].into());
    assert!(world.store.find_known_tasks(&[]).await.expect("looked up").is_empty());
}
