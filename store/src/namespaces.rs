//! Namespaces and their limits.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use sqlx::PgConnection;
use tasker_messages::{
    Namespace, NamespaceList, NamespaceView, NodeId, Queue, QueueLimits, Scope, SetNamespace,
    TaskId,
};

use crate::pool::{commit, retry_conflicts};
use crate::views::parse;
use crate::{NewTask, Store, StoreError};

/// The limits of one namespace that has any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceLimits {
    /// How many of its tasks may be open at a time.
    pub max_open_tasks: Option<u32>,
    /// How many of its steps workers may hold at a time, of all queues together.
    pub max_running: Option<u32>,
    /// How many steps of these queues workers may hold at a time.
    pub queues: HashMap<Queue, u32>,
}

/// One row of `queries/namespaces/list.sql`.
struct Row {
    name: String,
    description: Option<String>,
    max_open_tasks: Option<i32>,
    max_running: Option<i32>,
    open_tasks: i64,
    queues: Vec<String>,
    limits: Vec<i32>,
}

impl Row {
    fn view(self) -> Result<NamespaceView, StoreError> {
        let queues = self.queues.iter().zip(self.limits).map(|(queue, limit)| {
            Ok((parse("queue", queue)?, QueueLimits { max_running: limit as u32 }))
        });
        Ok(NamespaceView {
            name: parse("namespace", &self.name)?,
            description: self.description,
            max_open_tasks: self.max_open_tasks.map(|n| n as u32),
            max_running: self.max_running.map(|n| n as u32),
            open_tasks: self.open_tasks as u64,
            queues: queues.collect::<Result<BTreeMap<_, _>, StoreError>>()?,
        })
    }
}

impl Store {
    /// The limits of all namespaces that have any.
    pub async fn load_limits(&self) -> Result<HashMap<Namespace, NamespaceLimits>, StoreError> {
        self.read_limits(None).await
    }

    /// The limits of one namespace.
    pub async fn limits_of(&self, namespace: &Namespace) -> Result<NamespaceLimits, StoreError> {
        Ok(self.read_limits(Some(namespace)).await?.remove(namespace).unwrap_or_default())
    }

    async fn read_limits(
        &self,
        name: Option<&Namespace>,
    ) -> Result<HashMap<Namespace, NamespaceLimits>, StoreError> {
        let rows = sqlx::query!(
            r#"select name as "namespace!", null as queue, max_open_tasks, max_running
               from tasker.namespaces
               where (max_open_tasks is not null or max_running is not null)
                 and ($1::text is null or name = $1)
               union all
               select namespace, queue, null, max_running from tasker.queue_limits
               where $1::text is null or namespace = $1"#,
            name.map(Namespace::as_str),
        )
        .fetch_all(&self.api)
        .await?;
        let mut limits: HashMap<Namespace, NamespaceLimits> = HashMap::new();
        for row in rows {
            let of = limits.entry(parse("namespace", &row.namespace)?).or_default();
            match row.queue {
                None => {
                    of.max_open_tasks = row.max_open_tasks.map(|n| n as u32);
                    of.max_running = row.max_running.map(|n| n as u32);
                }
                Some(queue) => {
                    let most = row.max_running.map_or(u32::MAX, |n| n as u32);
                    of.queues.insert(parse("queue", &queue)?, most);
                }
            }
        }
        Ok(limits)
    }

    /// Takes or keeps the sharing of limits among queues, where no other node has it: of each namespace
    /// for which this node has it now, the limit.
    pub async fn claim_shares(
        &self,
        node: NodeId,
        lease: Duration,
    ) -> Result<Vec<(Namespace, u32)>, StoreError> {
        let rows = sqlx::query!(
            r#"update tasker.namespaces
               set shared_by = $1, shared_until = now() + make_interval(secs => $2)
               where max_running is not null
                 and (shared_by is null or shared_by = $1 or shared_until < now())
               returning name, max_running as "max_running!""#,
            node.as_uuid(),
            lease.as_secs_f64(),
        )
        .fetch_all(&self.api)
        .await?;
        let limit = |name: &str, most: i32| Ok((parse("namespace", name)?, most as u32));
        rows.into_iter().map(|row| limit(&row.name, row.max_running)).collect()
    }

    /// A page of namespaces, by name.
    pub async fn list_namespaces(
        &self,
        scope: &Scope,
        after: Option<&Namespace>,
        limit: u32,
    ) -> Result<NamespaceList, StoreError> {
        let namespaces = self.read_namespaces(scope, after, limit).await?;
        let full = namespaces.len() as u32 == limit;
        let next = namespaces.last().filter(|_| full).map(|namespace| namespace.name.clone());
        Ok(NamespaceList { namespaces, next })
    }

    async fn read_namespaces(
        &self,
        scope: &Scope,
        after: Option<&Namespace>,
        limit: u32,
    ) -> Result<Vec<NamespaceView>, StoreError> {
        let names = scope.names();
        let rows = sqlx::query_file_as!(
            Row,
            "queries/namespaces/list.sql",
            names.as_deref(),
            after.map(Namespace::as_str),
            i64::from(limit),
        )
        .fetch_all(&self.api)
        .await?;
        rows.into_iter().map(Row::view).collect()
    }

    /// Changes a namespace, which is made if it is not there, and records who did it. The values are
    /// checked by the caller.
    pub async fn set_namespace(
        &self,
        name: &Namespace,
        set: &SetNamespace,
        principal: &str,
    ) -> Result<Option<NamespaceView>, StoreError> {
        retry_conflicts(|| self.write_namespace(name, set, principal)).await?;
        let scope = Scope::of(Some(name.clone()));
        Ok(self.read_namespaces(&scope, None, 1).await?.pop())
    }

    async fn write_namespace(
        &self,
        name: &Namespace,
        set: &SetNamespace,
        principal: &str,
    ) -> Result<(), StoreError> {
        let mut tx = self.api.begin().await?;
        // First, so that of two who change one namespace the second waits for the first.
        sqlx::query!(
            "insert into tasker.namespaces as n (name, description, max_open_tasks, max_running)
             values ($1, $3, $5, $7)
             on conflict (name) do update
             set description = case when $2 then $3 else n.description end,
                 max_open_tasks = case when $4 then $5 else n.max_open_tasks end,
                 max_running = case when $6 then $7 else n.max_running end,
                 updated_at = now()",
            name.as_str(),
            set.description.is_some(),
            set.description.as_ref().and_then(Option::as_deref),
            set.max_open_tasks.is_some(),
            set.max_open_tasks.flatten().map(column),
            set.max_running.is_some(),
            set.max_running.flatten().map(column),
        )
        .execute(&mut *tx)
        .await?;
        set_queues(&mut tx, name, set).await?;
        sqlx::query!(
            "insert into tasker.admin_actions (namespace, action, principal, reason)
             values ($1, 'set_namespace', $2, $3)",
            name.as_str(),
            principal,
            format!("{}{}", changes(set), set.reason),
        )
        .execute(&mut *tx)
        .await?;
        commit(tx).await
    }

    /// How many tasks of these namespaces are open; nobody counts further than asked for.
    pub async fn count_open_tasks(
        &self,
        up_to: &HashMap<Namespace, u32>,
    ) -> Result<HashMap<Namespace, u32>, StoreError> {
        let (names, most): (Vec<String>, Vec<i64>) =
            up_to.iter().map(|(name, most)| (name.to_string(), i64::from(*most))).unzip();
        let mut connection = self.quick.lend().await?;
        let rows = sqlx::query!(
            r#"select n.name as "name!", c.open as "open!"
               from unnest($1::text[], $2::bigint[]) as n(name, most)
               cross join lateral (
                   select count(*) as open from (
                       select from tasker.tasks
                       where namespace = n.name and finished_at is null limit n.most
                   ) as open_tasks
               ) c"#,
            &names,
            &most,
        )
        .fetch_all(&mut *connection)
        .await?;
        connection.give_back();
        rows.into_iter().map(|row| Ok((parse("namespace", &row.name)?, row.open as u32))).collect()
    }

    /// Those of these tasks whose idempotency key belongs to a task that is stored.
    pub async fn find_known_tasks(
        &self,
        tasks: &[&NewTask],
    ) -> Result<HashSet<TaskId>, StoreError> {
        let keyed = tasks.iter().filter_map(|task| {
            let key = task.request.idempotency_key.clone()?;
            Some((task.id, (task.request.namespace.to_string(), key)))
        });
        let (ids, keys): (Vec<TaskId>, Vec<(String, String)>) = keyed.unzip();
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let (namespaces, keys): (Vec<String>, Vec<String>) = keys.into_iter().unzip();
        let found = sqlx::query_scalar!(
            r#"select k.n as "n!"
               from unnest($1::text[], $2::text[]) with ordinality as k(namespace, key, n)
               join tasker.tasks t on t.namespace = k.namespace and t.idempotency_key = k.key"#,
            &namespaces,
            &keys,
        )
        .fetch_all(&self.hot)
        .await?;
        let at = |n: i64| usize::try_from(n - 1).ok().and_then(|n| ids.get(n).copied());
        Ok(found.into_iter().filter_map(at).collect())
    }
}

/// Limits are within the range of the column; what is not would break its check.
fn column(limit: i64) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

async fn set_queues(
    connection: &mut PgConnection,
    name: &Namespace,
    set: &SetNamespace,
) -> Result<(), StoreError> {
    let mut removed = Vec::new();
    let (mut queues, mut limits) = (Vec::new(), Vec::new());
    for (queue, wish) in &set.queues {
        match wish.max_running {
            None => {}
            Some(None) => removed.push(queue.to_string()),
            Some(Some(limit)) => {
                queues.push(queue.to_string());
                limits.push(column(limit));
            }
        }
    }
    sqlx::query!(
        "delete from tasker.queue_limits where namespace = $1 and queue = any($2::text[])",
        name.as_str(),
        &removed,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "insert into tasker.queue_limits (namespace, queue, max_running)
         select $1, q.queue, q.most from unnest($2::text[], $3::int[]) as q(queue, most)
         on conflict (namespace, queue) do update set max_running = excluded.max_running",
        name.as_str(),
        &queues,
        &limits,
    )
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// What was changed, in front of the reason.
fn changes(set: &SetNamespace) -> String {
    let shown = |limit: Option<i64>| limit.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let open = set.max_open_tasks.map(|limit| format!("max_open_tasks {}", shown(limit)));
    let running = set.max_running.map(|limit| format!("max_running {}", shown(limit)));
    let described = set.description.as_ref().map(|_| "description".to_owned());
    let queues = set.queues.iter().filter_map(|(queue, wish)| {
        wish.max_running.map(|limit| format!("max_running of {queue} {}", shown(limit)))
    });
    let all: Vec<String> = described.into_iter().chain(open).chain(running).chain(queues).collect();
    if all.is_empty() { String::new() } else { format!("{}: ", all.join(", ")) }
}
