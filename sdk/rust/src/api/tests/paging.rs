use serde_json::{Value, json};

use super::server::{Asked, Reply, Server};
use crate::{ApiClient, ApiRequest, Pagination, Secret, StepError, code};

/// A parameter of the request's URL.
fn parameter<'a>(asked: &'a Asked, name: &str) -> Option<&'a str> {
    let (_, query) = asked.target.split_once('?')?;
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name).map(|p| p.1)
}

async fn read(request: ApiRequest, pagination: Pagination) -> Result<Vec<Vec<Value>>, StepError> {
    let mut pages = request.pages(pagination);
    let mut all = Vec::new();
    while let Some(page) = pages.next_page().await? {
        assert_eq!(page.number() as usize, all.len() + 1);
        all.push(page.into_items());
    }
    assert!(pages.next_page().await?.is_none(), "the end stays the end");
    Ok(all)
}

fn client(server: &Server) -> ApiClient {
    server.client().bearer(Secret::new("t")).build().expect("a client")
}

#[tokio::test]
async fn a_cursor_in_the_body() {
    for end in [json!({}), json!({"cursor": null}), json!({"cursor": ""}), json!({"cursor": false})]
    {
        let last = end.clone();
        let server = Server::start(move |asked| {
            let (items, next) = match parameter(asked, "after") {
                None => (json!([1, 2]), json!({"cursor": "a b&"})),
                Some("a+b%26") => (json!([]), json!({"cursor": 7})),
                Some("7") => (json!([3]), last.clone()),
                other => panic!("{other:?}"),
            };
            Reply::json(&json!({"data": {"items": items}, "meta": next}))
        })
        .await;
        let request = client(&server).get("list").query("limit", 2);
        let pagination = Pagination::cursor("/data/items", "/meta/cursor", "after");
        let got = read(request, pagination).await.expect("pages");
        assert_eq!(got, [vec![json!(1), json!(2)], vec![], vec![json!(3)]], "{end}");
        let log = ["?limit=2", "?limit=2&after=a+b%26", "?limit=2&after=7"];
        assert_eq!(server.log(), log.map(|query| format!("GET /list{query}")));
        assert!(
            server.asked().iter().all(|asked| asked.header("authorization") == Some("Bearer t"))
        );
    }
}

#[tokio::test]
async fn a_url_in_the_body() {
    let server = Server::start(|asked| {
        let own = format!("http://{}", asked.header("host").expect("a host"));
        Reply::json(&match asked.target.as_str() {
            "/list" => json!({"items": [1], "next": "/list?page=2"}),
            "/list?page=2" => json!({"items": [2], "next": format!("{own}/list?page=3")}),
            _ => json!({"items": [3], "next": null}),
        })
    })
    .await;
    let got = read(client(&server).get("list"), Pagination::next_url("/items", "/next")).await;
    assert_eq!(got.expect("pages"), [[json!(1)], [json!(2)], [json!(3)]]);
    assert_eq!(server.log(), ["GET /list", "GET /list?page=2", "GET /list?page=3"]);
}

#[tokio::test]
async fn a_link_in_the_header() {
    let server = Server::start(|asked| match parameter(asked, "page") {
        None => Reply::of(200, "link: </x>; rel=\"prev\", </list?page=2>; rel=\"next\"\r\n", "[1]"),
        Some("2") => Reply::of(200, "link: </x>; rel=prev\r\nlink: <?page=3>; rel=next\r\n", "[2]"),
        _ => Reply::of(200, "link: </list>; rel=\"first\"\r\n", "[3]"),
    })
    .await;
    let got = read(client(&server).get("list"), Pagination::link_header("")).await.expect("pages");
    assert_eq!(got, [[json!(1)], [json!(2)], [json!(3)]]);
    assert_eq!(server.log(), ["GET /list", "GET /list?page=2", "GET /list?page=3"]);
}

#[tokio::test]
async fn page_numbers() {
    let server = Server::start(|asked| {
        let page: u64 = parameter(asked, "page").expect("a page").parse().expect("a number");
        Reply::json(&if page <= 2 { json!([page]) } else { json!([]) })
    })
    .await;
    let client = client(&server);
    let by_number = || Pagination::page_number("", "page", 1);
    let got = read(client.get("list").query("size", 1), by_number()).await.expect("pages");
    assert_eq!(got, [[json!(1)], [json!(2)]]);
    let log = [1, 2, 3].map(|page| format!("GET /list?size=1&page={page}"));
    assert_eq!(server.log(), log);
    // What a checkpoint holds goes on where it was.
    let mut pages = client.get("list").pages(by_number());
    pages.next_page().await.expect("a page").expect("the first");
    let stored = pages.next_url().expect("there is more").to_owned();
    let got = read(client.get(&stored), by_number()).await.expect("pages");
    assert_eq!(got, [[json!(2)]]);
    let error = read(client.get("list?page=x"), by_number()).await.expect_err("no number");
    assert_eq!(error.code(), code::API_REQUEST_INVALID);
}

/// A service whose pages do what the path says.
async fn misleading() -> Server {
    Server::start(|asked| {
        let page = parameter(asked, "page").map_or(0, |page| page.parse::<u64>().expect("a page"));
        let next = match asked.target.split(['?', '/']).nth(1) {
            Some("self") => json!(format!("?page={page}")),
            Some("circle") => json!(format!("?page={}", (page + 1) % 3)),
            Some("endless") => json!(format!("?page={}", page + 1)),
            Some("away") => json!("http://127.0.0.2/"),
            Some("port") => json!("http://127.0.0.1:1/"),
            Some("file") => json!("file:///etc/passwd"),
            Some("odd") => json!({"page": 1}),
            _ => return Reply::json(&json!({"items": {"not": "a list"}})),
        };
        Reply::json(&json!({"items": [page], "next": next}))
    })
    .await
}

#[tokio::test]
async fn pages_that_lead_nowhere() {
    let server = misleading().await;
    let client = client(&server);
    // (path, code, requests)
    let table = [
        ("self?page=0", code::API_PAGES_ENDLESS, 1),
        ("circle?page=0", code::API_PAGES_ENDLESS, 3),
        ("endless?page=0", code::API_PAGES_ENDLESS, 5),
        ("away", code::API_PAGE_INVALID, 1),
        ("port", code::API_PAGE_INVALID, 1),
        ("file", code::API_ADDRESS_REFUSED, 1),
        ("odd", code::API_PAGE_INVALID, 1),
        ("itemless", code::API_PAGE_INVALID, 1),
    ];
    let mut asked = 0;
    for (path, code, requests) in table {
        let pagination = Pagination::next_url("/items", "/next").max_pages(5);
        let error = read(client.get(path), pagination).await.expect_err(path);
        assert_eq!((error.code(), error.is_retryable()), (code, false), "{path}: {error}");
        asked += requests;
        assert_eq!(server.log().len(), asked, "{path}");
    }
    let cursor = Pagination::cursor("/items", "/next", "page");
    let error = read(client.get("odd"), cursor).await.expect_err("no cursor");
    assert_eq!(error.code(), code::API_PAGE_INVALID);
    let error = read(client.post("self"), Pagination::link_header("")).await.expect_err("no GET");
    assert_eq!(error.code(), code::API_REQUEST_INVALID);
}

#[tokio::test]
async fn a_cursor_that_repeats() {
    let server = Server::start(|_| Reply::json(&json!({"items": [1], "next": "same"}))).await;
    let pagination = Pagination::cursor("/items", "/next", "after");
    let error = read(client(&server).get(""), pagination).await.expect_err("a circle");
    assert_eq!((error.code(), server.log().len()), (code::API_PAGES_ENDLESS, 2));
}

#[tokio::test]
async fn as_many_pages_as_the_limit_are_fine() {
    let server = Server::start(|asked| {
        let page = parameter(asked, "page").map_or(1, |page| page.parse::<u64>().expect("a page"));
        let next = if page < 3 { json!(page + 1) } else { Value::Null };
        Reply::json(&json!({"items": [page], "next": next}))
    })
    .await;
    let pagination = Pagination::cursor("/items", "/next", "page");
    let got = read(client(&server).get(""), pagination.clone().max_pages(3)).await.expect("three");
    assert_eq!(got, [[json!(1)], [json!(2)], [json!(3)]]);
    let error = read(client(&server).get(""), pagination.max_pages(2)).await.expect_err("three");
    assert_eq!(error.code(), code::API_PAGES_ENDLESS);
}

#[tokio::test]
async fn a_page_that_failed_is_asked_for_again() {
    let server = Server::start(|asked| {
        // The second request is the first one for page 2.
        match (parameter(asked, "page"), asked.header("x-attempt")) {
            (None, _) => Reply::json(&json!({"items": [{"n": 1}], "next": 2})),
            (Some(_), _) => Reply::of(503, "", ""),
        }
    })
    .await;
    let mut pages = client(&server).get("").pages(Pagination::cursor("/items", "/next", "page"));
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Item {
        n: u64,
    }
    let page = pages.next_page().await.expect("a page").expect("the first");
    assert_eq!(page.items_as::<Item>(), Ok(vec![Item { n: 1 }]));
    let error = page.items_as::<String>().expect_err("objects");
    assert_eq!(error.code(), code::API_BODY_INVALID);
    assert!(error.message().contains("item 0 of page 1"), "{error}");
    for _ in 0..2 {
        let error = pages.next_page().await.expect_err("503");
        assert_eq!(error.code(), code::API_STATUS_RETRYABLE);
    }
    assert_eq!(server.log(), ["GET /", "GET /?page=2", "GET /?page=2"]);
}
