//! Under a path: where a proxy passes it on, and where it removes it.

use integration_tests::api::Api;
use integration_tests::balancer::Balancer;
use integration_tests::browser::Browser;
use integration_tests::dashboard::until_received;
use integration_tests::http::ask;
use integration_tests::publish::{Publish, event, events};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use serde_json::{Value, json};

const BASE: &str = "/events-service";

#[tokio::test]
async fn service_answers_under_its_base_path_alone() {
    let world = World::embedded();
    let settings = world.settings().with("EVENTSIEVE_BASE_PATH", &format!("{BASE}/"));
    let service = world.serve_with(settings).await;
    assert!(service.url().ends_with(BASE), "{}", service.url());
    let root = Api::at(service.url().strip_suffix(BASE).expect("it ends so"));
    assert_eq!(service.publish(&Value::from(events("orders", 0..3))).await.status, 201);
    for path in ["/livez", "/readyz", "/health", "/healthz", "/metrics"] {
        assert_eq!(root.fetch(path).await.status, 200, "{path}");
        assert_eq!(service.fetch(path).await.status, 200, "{path}");
    }
    for path in [
        "/",
        "/events",
        "/stats",
        "/dashboard",
        "/docs/",
        "/openapi.json",
        "/events-servicex/stats",
        "/x/events-service/stats",
    ] {
        root.fetch(path).await.problem(404);
    }
    ask(root.post("/publish").json(&event("orders", "evt-1")))
        .await
        .problem(404);
    service.fetch("/nothing").await.problem(404);
    service.fetch("/events-service/stats").await.problem(404);
    ask(service.post("/stats")).await.problem(405);

    let entrance = root.fetch(BASE).await;
    assert_eq!((entrance.status, entrance.header("location")), (308, "events-service/"));
    assert!(!entrance.header("x-request-id").is_empty());
    assert_eq!(service.json("/").await["service"], "eventsieve");
    assert_eq!(service.fetch("/docs").await.header("location"), "docs/");
    let page = service.fetch("/events?format=array&limit=1").await;
    let link = page.header("link");
    assert!(link.starts_with("</events-service/events?"), "{link}");
    let next = link.trim_start_matches('<').split('>').next().expect("a link");
    assert_eq!(root.json(next).await.as_array().map(Vec::len), Some(1));
    assert_eq!(service.json("/openapi.json").await["servers"], json!([{ "url": BASE }]));
    // Who looks at the metrics need not know where a proxy has put the service.
    let metrics = root.fetch("/metrics").await;
    let labels =
        ["/publish", "/events-service/publish"].map(|route| metrics.text().contains(&format!("route=\"{route}\"")));
    assert_eq!(labels, [true, false], "{}", metrics.text());
    world.check(3).await;
}

/// What a trusted proxy has removed is in all that the service writes; another client cannot say so.
#[tokio::test]
async fn prefix_is_believed_of_a_trusted_proxy_alone() {
    let world = World::embedded();
    for (trusted, expected) in [("127.0.0.1", "/log/a"), ("192.0.2.1", "")] {
        let service = world
            .serve_with(world.settings().with("EVENTSIEVE_TRUSTED_PROXIES", trusted))
            .await;
        let answer = ask(service
            .get("/events?format=array")
            .header("x-forwarded-prefix", "/log/a"))
        .await;
        let link = answer.header("link");
        assert!(link.starts_with(&format!("<{expected}/events?")), "{link}");
        let document = ask(service.get("/openapi.json").header("x-forwarded-prefix", "/log/a"))
            .await
            .json();
        let servers = if expected.is_empty() {
            Value::Null
        } else {
            json!([{ "url": expected }])
        };
        assert_eq!(document["servers"], servers);
        for wrong in ["https://other.example/", "//other.example", "/a>; rel=\"next\"", "a"] {
            let answer = ask(service.get("/events?format=array").header("x-forwarded-prefix", wrong)).await;
            assert!(answer.header("link").starts_with("</events?"), "{wrong}");
        }
    }
}

#[tokio::test]
async fn base_path_that_is_none_is_one_line_of_error() {
    for (variable, value, part) in [
        (
            "EVENTSIEVE_BASE_PATH",
            "events",
            "EVENTSIEVE_BASE_PATH must be a path such as /events-service",
        ),
        (
            "EVENTSIEVE_TRUSTED_PROXIES",
            "10.0.0.0/40",
            "EVENTSIEVE_TRUSTED_PROXIES must be networks such as",
        ),
        (
            "EVENTSIEVE_FORWARDED_HEADER",
            "via",
            "EVENTSIEVE_FORWARDED_HEADER must be x-forwarded-for or forwarded",
        ),
        (
            "EVENTSIEVE_PROXY_PROTOCOL",
            "true",
            "EVENTSIEVE_PROXY_PROTOCOL needs EVENTSIEVE_TRUSTED_PROXIES",
        ),
    ] {
        let ended = Settings::new("postgres://h/d").with(variable, value).run().await;
        ended.ended_with(64);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

/// Everything that a client does, by way of a proxy.
async fn works_under(service: &Service, url: &str) {
    commands_work(url).await;
    let (host, path) = url.split_at(url.rfind('/').expect("a path"));
    let api = Api::at(url);
    let page = api.fetch("/events?format=array").await;
    let next = page
        .header("link")
        .trim_start_matches('<')
        .split('>')
        .next()
        .expect("a link")
        .to_owned();
    assert!(next.starts_with(&format!("{path}/events?")), "{next}");
    assert_eq!(Api::at(host).json(&next).await, json!([]));
    let to_docs = api.fetch("/docs").await;
    assert_eq!((to_docs.status, to_docs.header("location")), (308, "docs/"));

    let browser = Browser::open(1280, 900).await;
    dashboard_works(&browser, service, url).await;
    swagger_works(&browser, url, path).await;
    let requests = browser.requests().await;
    let is_inside =
        |request: &String| request.starts_with(&format!("{url}/")) || request.starts_with("data:") || request == url;
    let outside: Vec<&String> = requests.iter().filter(|request| !is_inside(request)).collect();
    assert!(outside.is_empty() && requests.len() > 10, "{outside:?}");
    let tried = format!("{url}/stats");
    assert!(requests.contains(&tried), "{requests:?}");
}

async fn commands_work(url: &str) {
    let command = async |arguments: &[&str]| {
        let arguments = [arguments, &["--url", url]].concat();
        let settings = Settings::new("unused")
            .without("DATABASE_URL")
            .without("HOST")
            .without("PORT");
        let ended = settings.arguments(&arguments).run().await;
        ended.ended_with(0);
        ended.stdout
    };
    command(&["publish", "user.login", r#"{"user":"ada"}"#, "--id", "evt-1"]).await;
    assert!(command(&["ls", "--topic", "user.login"]).await.contains("evt-1"));
    assert!(command(&["get", "user.login", "evt-1"]).await.contains("ada"));
    assert!(command(&["stats"]).await.contains("user.login"));
    assert!(command(&["topics"]).await.contains("user.login"));
    assert!(
        command(&["tail", "--after", "", "--limit", "1"])
            .await
            .contains("evt-1")
    );
    command(&["healthcheck"]).await;
}

async fn dashboard_works(browser: &Browser, service: &Service, url: &str) {
    for page in ["/dashboard", "/"] {
        browser.go(&format!("{url}{page}")).await;
        browser.until_text("#status", "healthy").await;
        until_received(browser, 1).await;
    }
    browser.until_text("#live-note", "Every event").await;
    service.publish(&event("orders", "live")).await;
    browser.until_text("#live li:first-child .id", "live").await;
    assert_eq!(browser.console().await, Vec::<String>::new());
}

async fn swagger_works(browser: &Browser, url: &str, path: &str) {
    browser.go(&format!("{url}/docs")).await;
    browser.until_text(".servers option", path).await;
    browser
        .until(
            "the operation is there",
            "return !!document.querySelector('#operations-observe-getStats .opblock-summary-control')",
        )
        .await;
    browser
        .click("#operations-observe-getStats .opblock-summary-control")
        .await;
    browser
        .until(
            "it can be tried",
            "return !!document.querySelector('#operations-observe-getStats .try-out__btn')",
        )
        .await;
    browser.click("#operations-observe-getStats .try-out__btn").await;
    browser
        .until(
            "it can be sent",
            "return !!document.querySelector('#operations-observe-getStats .execute')",
        )
        .await;
    browser.click("#operations-observe-getStats .execute").await;
    browser
        .until_text(
            "#operations-observe-getStats .live-responses-table .response .response-col_status",
            "200",
        )
        .await;
}

#[tokio::test]
async fn everything_works_behind_nginx_that_passes_the_path_on() {
    let world = World::embedded();
    let service = world
        .serve_with(world.settings().with("EVENTSIEVE_BASE_PATH", BASE))
        .await;
    let address = service.address().strip_suffix(BASE).expect("it ends so");
    let nginx = Balancer::nginx(&format!(
        "location {BASE} {{ proxy_pass http://{address}; proxy_http_version 1.1; proxy_buffering off; }}"
    ))
    .await;
    works_under(&service, &format!("{}{BASE}", nginx.url())).await;
    world.check(2).await;
}

#[tokio::test]
async fn everything_works_behind_nginx_that_removes_the_path() {
    let world = World::embedded();
    let service = world
        .serve_with(world.settings().with("EVENTSIEVE_TRUSTED_PROXIES", "127.0.0.1"))
        .await;
    let nginx = Balancer::nginx(&format!(
        "location /log/ {{ proxy_pass http://{}/; proxy_http_version 1.1; proxy_buffering off;\n\
         proxy_set_header X-Forwarded-Prefix /log; proxy_set_header X-Forwarded-For $remote_addr; }}",
        service.address()
    ))
    .await;
    works_under(&service, &format!("{}/log", nginx.url())).await;
    world.check(2).await;
}
