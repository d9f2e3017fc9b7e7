//! Who can work with which schema, and how it changes while others work with it.

use std::time::Duration;

use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, SqlStr};
use tasker_config::{Database, Loader};

use crate::migrations::migrate_with;
use crate::{Migrated, Store, StoreError, migrate};

/// The settings of a test's database.
fn settings(pool: &PgPool) -> Database {
    let url = pool.connect_options().to_url_lossy().to_string();
    let loader = Loader::new().and_then(|loader| loader.flag("database.url", &url, "test"));
    loader.and_then(Loader::load).expect("valid settings").settings.database
}

async fn run(pool: &PgPool, statement: &'static str) {
    sqlx::query(statement).execute(pool).await.expect(statement);
}

const RECORD: &str =
    "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
    values ($1, $2, true, '', 0)";

/// Writes down that a later release has applied a step.
async fn apply_later(pool: &PgPool, version: i64, name: &str) {
    sqlx::query(RECORD).bind(version).bind(name).execute(pool).await.expect("recorded");
}

#[sqlx::test(migrations = false)]
async fn a_build_says_whether_it_fits(pool: PgPool) {
    let (settings, store) = (settings(&pool), Store::from_pool(pool.clone()));
    let check = async || store.schema().await.expect("read").check();
    assert!(matches!(check().await, Err(StoreError::OldSchema { applied: 0, .. })));
    let migrated = migrate(&settings, false).await.expect("migrated");
    assert_eq!(migrated, migrate(&settings, true).await.expect("again"));
    let known = store.schema().await.expect("read").known;
    assert_eq!(migrated, Migrated { applied: known, held_back: None });
    check().await.expect("the same schema");

    // What a later release has added bothers neither nodes nor the migration of this one.
    apply_later(&pool, known + 1, "more columns").await;
    apply_later(&pool, known + 2, "contract 0003 fewer columns").await;
    check().await.expect("nothing is gone that is needed");
    let applied = known + 2;
    assert_eq!(
        migrate(&settings, false).await.expect("nothing to do"),
        Migrated { applied, held_back: None }
    );
    apply_later(&pool, known + 3, &format!("contract {:04} a column", known + 1)).await;
    assert!(matches!(check().await, Err(StoreError::NewSchema { .. })));
    assert!(matches!(migrate(&settings, true).await, Err(StoreError::NewSchema { .. })));
    run(&pool, "delete from _sqlx_migrations where description like 'contract%'").await;

    run(&pool, "update _sqlx_migrations set checksum = '' where version = 3").await;
    let changed = migrate(&settings, false).await.expect_err("another step 3").to_string();
    assert!(changed.contains("migration 3") && changed.contains("modified"), "{changed}");
}

/// Steps of a release.
fn release(steps: &[(&'static str, &'static str)]) -> Migrator {
    let steps = steps.iter().zip(1..).map(|((name, sql), version)| {
        let kind = MigrationType::Simple;
        Migration::new(version, (*name).into(), kind, SqlStr::from_static(sql), false)
    });
    let mut release = Migrator::with_migrations(steps.collect());
    release.set_ignore_missing(true);
    release
}

const MORE: (&str, &str) = ("more", "create table numbers (n int, m int)");
const MOVED: (&str, &str) = ("moved", "alter table numbers add column k int");
const FEWER: (&str, &str) = ("contract 0002 fewer", "alter table numbers drop column m");
const LAST: (&str, &str) = ("last", "alter table numbers add column l int");

#[sqlx::test(migrations = false)]
async fn contract_steps_wait_until_they_are_asked_for(pool: PgPool) {
    let settings = settings(&pool);
    let migrate = async |steps: &[(&'static str, &'static str)], contract| {
        migrate_with(&release(steps), &settings, contract).await.expect("migrated")
    };
    let done = |applied| Migrated { applied, held_back: None };
    assert_eq!(migrate(&[MORE], false).await, done(1));
    let held_back = Migrated { applied: 2, held_back: Some((3, 2)) };
    assert_eq!(migrate(&[MORE, MOVED, FEWER, LAST], false).await, held_back);
    assert_eq!(migrate(&[MORE, MOVED, FEWER, LAST], false).await, held_back, "again");
    run(&pool, "select m from numbers").await;
    assert_eq!(migrate(&[MORE, MOVED, FEWER, LAST], true).await, done(4));
    run(&pool, "drop table numbers, _sqlx_migrations").await;
    // Nobody uses a new database.
    assert_eq!(migrate(&[MORE, MOVED, FEWER], false).await, done(3));
}

/// Whether a session of the migrator waits for a lock.
async fn migrator_waits(pool: &PgPool) -> bool {
    let waiting = sqlx::query_scalar(
        "select exists(select from pg_stat_activity where datname = current_database()
             and application_name = 'tasker migrate' and wait_event_type = 'Lock')",
    );
    waiting.fetch_one(pool).await.expect("read")
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let looks = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looks).await.expect(what);
}

/// Behind a step that waits for a long transaction nobody waits for long.
#[sqlx::test(migrations = false)]
async fn a_step_that_waits_lets_others_pass(pool: PgPool) {
    let settings = settings(&pool);
    migrate_with(&release(&[MORE]), &settings, false).await.expect("migrated");
    let mut long = pool.begin().await.expect("a transaction");
    sqlx::query("select from numbers").execute(&mut *long).await.expect("a lock");
    let release = release(&[MORE, MOVED]);
    let others = async {
        for _ in 0..2 {
            until("the step waits", async || migrator_waits(&pool).await).await;
            // As a node does, whose statements wait for two seconds.
            let mut node = pool.acquire().await.expect("a connection");
            sqlx::query("set lock_timeout = '2s'").execute(&mut *node).await.expect("set");
            let passed = sqlx::query("insert into numbers values (1, 2)").execute(&mut *node).await;
            passed.expect("passed");
            until("the step steps back", async || !migrator_waits(&pool).await).await;
        }
        long.commit().await.expect("the end");
    };
    let (migrated, ()) = tokio::join!(migrate_with(&release, &settings, false), others);
    assert_eq!(migrated.expect("migrated"), Migrated { applied: 2, held_back: None });
}

#[sqlx::test(migrations = false)]
async fn one_migration_waits_for_the_other(pool: PgPool) {
    let settings = settings(&pool);
    let mut other: PgConnection = pool.acquire().await.expect("a connection").detach();
    other.lock().await.expect("the lock of the migrator");
    let others = async {
        until("it waits", async || migrator_waits(&pool).await).await;
        other.close().await.expect("the end");
    };
    let (migrated, ()) = tokio::join!(migrate(&settings, false), others);
    migrated.expect("migrated");
}

/// A role that is called like the schema, as the one of `docker-compose.yml`, looks there first.
#[sqlx::test(migrations = false)]
async fn the_list_of_steps_stays_where_it_is(pool: PgPool) {
    let settings = settings(&pool);
    let first = "do $$ begin execute format('alter database %I set search_path = tasker, public',
        current_database()); end $$";
    run(&pool, first).await;
    let migrated = migrate(&settings, false).await.expect("a new database");
    assert_eq!(migrate(&settings, false).await.expect("again"), migrated);
    let schema = Store::from_pool(pool.clone()).schema().await.expect("read");
    assert_eq!((schema.applied, schema.known), (migrated.applied, migrated.applied));
}

/// What Postgres cannot do is not what it could do a moment ago.
#[sqlx::test]
async fn what_is_not_supported_is_no_changed_result(pool: PgPool) {
    let refused =
        sqlx::query("select * from tasker.tasks union select * from tasker.tasks for update");
    let error = StoreError::from(refused.execute(&pool).await.expect_err("not supported"));
    assert!(error.to_string().contains("FOR UPDATE"), "{error}");
    assert!(!error.is_transient() && !error.is_conflict(), "{error}");
}

const ASK: &str = "select description from tasker.templates union all select ''";

/// A statement that every connection has prepared, of which the type of the result changes.
#[sqlx::test]
async fn a_statement_of_an_older_schema_fails_once(pool: PgPool) {
    let store = Store::connect(&settings(&pool)).await.expect("connected");
    let quick = async || {
        let mut connection = store.quick.lend().await?;
        let answer: Option<String> = sqlx::query_scalar(ASK).fetch_one(&mut *connection).await?;
        connection.give_back();
        Ok::<_, StoreError>(answer)
    };
    let hot = async || {
        let mut tx = store.hot.begin().await?;
        Ok::<Option<String>, StoreError>(sqlx::query_scalar(ASK).fetch_one(&mut *tx).await?)
    };
    // Several connections of each pool.
    for _ in 0..10 {
        let (a, b, c, d) = tokio::join!(quick(), quick(), hot(), hot());
        [a, b, c, d].into_iter().for_each(|answer| drop(answer.expect("an answer")));
    }
    for change in [
        "alter table tasker.templates alter column description type varchar",
        "alter table tasker.templates alter column description type text",
    ] {
        run(&pool, change).await;
        let refused = quick().await.expect_err("it was prepared for another type");
        assert!(refused.is_transient() && refused.is_conflict(), "{refused}");
        for n in 0..10 {
            let (a, b, c, d) = tokio::join!(quick(), quick(), hot(), hot());
            for answer in [a, b, c, d] {
                answer.unwrap_or_else(|error| panic!("after that, {n}: {error}"));
            }
        }
    }
    store.close().await;
}
