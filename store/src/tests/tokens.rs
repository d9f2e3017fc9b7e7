//! Tokens of the HTTP API: what is stored of them, and which are accepted.

use std::time::{Duration, SystemTime};

use sqlx::PgPool;
use tasker_messages::{Namespace, Role, Scope, TokenState, TokenView, code};

use crate::{ApiToken, NewToken, Store};

const HOUR: Duration = Duration::from_secs(3_600);

fn new(name: &str) -> NewToken {
    let name = name.to_owned();
    NewToken { name, role: Role::Operator, scope: Scope::All, days: 30, by: "me".to_owned() }
}

async fn make(store: &Store, new: &NewToken) -> Result<(ApiToken, TokenView), String> {
    let token = ApiToken::generate().expect("random bytes");
    let made = store.create_token(&token, new).await.expect("decided");
    made.map(|view| (token, view)).map_err(|refusal| refusal.code)
}

async fn accepted(store: &Store) -> Vec<String> {
    store.load_tokens().await.expect("read").into_iter().map(|known| known.name).collect()
}

#[sqlx::test]
async fn a_token_is_accepted_until_it_is_revoked(pool: PgPool) {
    let store = Store::from_pool(pool.clone());
    let here = Namespace::new("here").expect("a name");
    let scoped = NewToken { scope: Scope::Only(vec![here.clone()]), ..new("scoped") };
    let (token, view) = make(&store, &scoped).await.expect("made");
    let (other, all) = make(&store, &new("all")).await.expect("made");
    assert_eq!((view.namespaces.as_deref(), all.namespaces), (Some(&[here][..]), None));
    assert_eq!(
        (view.role, view.state, view.created_by.as_str()),
        (Role::Operator, TokenState::Active, "me")
    );
    let known = store.load_tokens().await.expect("read");
    let [first, second] = known.as_slice() else { panic!("{known:?}") };
    assert_eq!((first.id, &first.scope, &second.scope), (token.id(), &scoped.scope, &Scope::All));
    let now = SystemTime::now();
    assert!(first.accepts(&token, now) && second.accepts(&other, now));
    assert!(!first.accepts(&other, now), "the secret is another token's");
    let day = 24 * HOUR;
    assert!(first.accepts(&token, now + 29 * day) && !first.accepts(&token, now + 31 * day));

    // By name or id; once revoked, a name may be given again, and the id still finds it.
    let revoked = store.revoke_token("scoped", "you").await.expect("done").expect("found");
    assert_eq!((revoked.id, revoked.state), (view.id, TokenState::Revoked));
    let id = all.id.to_string();
    store.revoke_token(&id, "you").await.expect("done").expect("found");
    assert!(accepted(&store).await.is_empty());
    let again = store.revoke_token(&id, "you").await.expect("done").expect("found");
    assert_eq!((again.id, again.state), (all.id, TokenState::Revoked));
    for nobody in ["scoped", "all", "0190a0a0-0000-7000-8000-000000000000", ""] {
        assert!(store.revoke_token(nobody, "you").await.expect("done").is_none(), "{nobody}");
    }
    let (_, view) = make(&store, &new("scoped")).await.expect("made");
    let listed = store.list_tokens(false, 10).await.expect("listed");
    assert_eq!(listed, [view]);
    let states: Vec<TokenState> =
        store.list_tokens(true, 10).await.expect("listed").iter().map(|view| view.state).collect();
    assert_eq!(states, [TokenState::Active, TokenState::Revoked, TokenState::Revoked]);
    let audited: Vec<String> = sqlx::query_scalar(
        "select action || ' ' || principal || ' ' || split_part(reason, ' ', 2)
         from tasker.admin_actions order by id",
    )
    .fetch_all(&pool)
    .await
    .expect("read");
    let expect = [
        "create_token me scoped",
        "create_token me all",
        "revoke_token you scoped",
        "revoke_token you all",
        "create_token me scoped",
    ];
    assert_eq!(audited, expect);
}

#[sqlx::test]
async fn one_name_is_one_token(pool: PgPool) {
    let store = Store::from_pool(pool.clone());
    make(&store, &new("ci")).await.expect("made");
    let twice = make(&store, &new("ci")).await.expect_err("refused");
    assert_eq!(twice, code::TOKEN_EXISTS);
    // An expired one still has its name, so that the audit trail tells them apart.
    let expire = "update tasker.api_tokens set expires_at = now() - interval '1 s'";
    sqlx::query(expire).execute(&pool).await.expect("done");
    assert!(accepted(&store).await.is_empty());
    assert_eq!(make(&store, &new("ci")).await.expect_err("refused"), code::TOKEN_EXISTS);
    let listed = store.list_tokens(true, 10).await.expect("listed");
    assert_eq!(listed[0].state, TokenState::Expired);
    assert!(store.list_tokens(false, 10).await.expect("listed").is_empty());
}

#[sqlx::test]
async fn there_are_so_many_tokens_at_the_most(pool: PgPool) {
    let store = Store::from_pool(pool.clone());
    let fill = "insert into tasker.api_tokens (id, name, hash, role, created_by, expires_at)
                select gen_random_uuid(), 'n' || n, sha256('x'), 'viewer', 'me', now() + interval '1 day'
                from generate_series(1, 10000) n";
    sqlx::query(fill).execute(&pool).await.expect("done");
    assert_eq!(make(&store, &new("one-more")).await.expect_err("refused"), code::TOO_LARGE);
    store.revoke_token("n1", "me").await.expect("done").expect("found");
    make(&store, &new("one-more")).await.expect("made");
}

/// Whoever reads the table has nothing that is accepted.
#[sqlx::test]
async fn no_secret_is_stored(pool: PgPool) {
    let store = Store::from_pool(pool.clone());
    let (token, _) = make(&store, &new("ci")).await.expect("made");
    let secret = token.reveal().rsplit('_').next().expect("a secret").to_owned();
    for table in ["api_tokens", "admin_actions"] {
        let rows = sqlx::AssertSqlSafe(format!("select json_agg(t)::text from tasker.{table} t"));
        let rows: String = sqlx::query_scalar(rows).fetch_one(&pool).await.expect("read");
        assert!(rows.contains("ci") && !rows.contains(&secret), "{table}: {rows}");
    }
    let made_of_the_hash = format!("{}{}", &token.reveal()[..40], hex(&token.hash()));
    let pretended = ApiToken::parse(&made_of_the_hash).expect("a token in form");
    let known = store.load_tokens().await.expect("read");
    assert!(!known[0].accepts(&pretended, SystemTime::now()));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
