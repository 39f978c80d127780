//! The OpenAPI document and its page: complete, correct, and served by the binary without other hosts.

use integration_tests::http::{Answer, ask, client};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, event};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

#[tokio::test]
async fn served_document_equals_printed_one() {
    let world = World::embedded();
    let service = world.serve().await;
    let served = service.fetch("/openapi.json").await;
    assert_eq!(served.status, 200);
    assert_eq!(served.header("content-type"), "application/json");
    assert_eq!(served.json()["openapi"], "3.1.0");
    let printed = Settings::new("sqlite://nowhere").arguments(&["openapi"]).run().await;
    assert!(printed.ended_with(0).stdout == served.text(), "the two differ");
}

#[tokio::test]
async fn documents_exactly_the_methods_of_each_path() {
    let world = World::embedded();
    let service = world.serve().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    let key = service.post("/keys").header("content-type", "application/json");
    let key = ask(key.body(r#"{"name":"n","scopes":["read"]}"#)).await.json();
    let key = key["id"].as_str().expect("an id");
    let document = service.json("/openapi.json").await;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let file = if path.starts_with("/docs/") {
            "index.css"
        } else {
            "style.css"
        };
        let path = path
            .replace("{file}", file)
            .replace("{topic}", "orders")
            .replace("{event_id}", "evt-1")
            .replace("{id}", key);
        for method in METHODS {
            let request = client().request(method.clone(), format!("{}{path}", service.url()));
            // The status alone: a stream has no end.
            let answer = request.send().await.expect("an answer");
            let documented = item.get(method.as_str().to_lowercase()).is_some();
            let is_missing = matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(is_missing, !documented, "{method} {path}: {}", answer.status());
            if !documented {
                assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                let allowed = answer.headers()["allow"].to_str().expect("methods are ASCII");
                assert_eq!(methods(allowed.split(',')), methods(documented_methods(item)), "{path}");
            }
        }
    }
}

/// The methods that a path is documented with. A `GET` may be a `HEAD`.
fn documented_methods(item: &Value) -> impl Iterator<Item = &str> {
    let methods = item.as_object().expect("a path has methods").keys();
    methods.flat_map(|method| match method.as_str() {
        "get" => vec!["GET", "HEAD"],
        "post" => vec!["POST"],
        "patch" => vec!["PATCH"],
        "delete" => vec!["DELETE"],
        other => panic!("{other} is not expected"),
    })
}

fn methods<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.map(str::trim).collect();
    names.sort_unstable();
    names
}

/// The values of `href` and `src` in a page.
fn links(page: &str) -> Vec<&str> {
    let parts = page.split(['=', ' ']).collect::<Vec<_>>();
    let links = parts.windows(2).filter(|pair| matches!(pair[0], "href" | "src"));
    links.filter_map(|pair| pair[1].split('"').nth(1)).collect()
}

#[tokio::test]
async fn page_and_files_have_strict_policy_and_no_other_host() {
    let world = World::embedded();
    let service = world.serve().await;
    let redirect = service.fetch("/docs").await;
    assert_eq!((redirect.status, redirect.header("location")), (308, "docs/"));
    let page = service.fetch("/docs/").await;
    let links = links(page.text());
    assert!(links.len() >= 6, "{}", page.text());
    let mut files = vec![(String::new(), page.clone())];
    for link in links {
        assert!(!link.contains("//"), "{link} is on another host");
        let name = link.trim_start_matches("./");
        files.push((name.to_owned(), service.fetch(&format!("/docs/{name}")).await));
    }
    for (name, file) in &files {
        assert_eq!(file.status, 200, "{name}");
        assert_eq!(file.header("content-type"), media_type(name), "{name}");
        assert_eq!(file.header("x-content-type-options"), "nosniff", "{name}");
        let policy = file.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(
                policy.split("; ").any(|directive| directive == part),
                "{name}: {policy}"
            );
        }
        assert!(
            !policy.contains("http") && !policy.contains('*') && !policy.contains("unsafe"),
            "{name}: {policy}"
        );
    }
    let start = service.fetch("/docs/swagger-initializer.js").await;
    assert!(start.text().contains(r#""url": "../openapi.json""#), "{}", start.text());
    assert!(start.text().contains(r#""validatorUrl": "none""#), "{}", start.text());
    assert!(!start.text().contains("http"), "{}", start.text());
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("png") => "image/png",
        _ => "text/html",
    }
}

#[tokio::test]
async fn unknown_page_files_are_404() {
    let world = World::embedded();
    let service = world.serve().await;
    for path in [
        "/docs/nothing",
        "/docs/swagger-ui.css/",
        "/docs//",
        "/docs/..%2fCargo.toml",
        "/docs/%ff",
        "/docs/a/b",
        "/dashboard/%ff",
    ] {
        service.fetch(path).await.problem(404);
    }
}

/// The documentation of answers.
struct Documented<'a> {
    document: &'a Value,
}

impl<'a> Documented<'a> {
    /// Asserts that the answer to this request agrees with its schema, and has no member that is not documented.
    #[track_caller]
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let media_type = answer.header("content-type");
        let content = &self.document["paths"][path][method]["responses"][answer.status.to_string()]["content"];
        let schema = &content[media_type]["schema"];
        assert!(
            schema.is_object(),
            "{method} {path}: {} {media_type} is not documented",
            answer.status
        );
        let errors = self.errors(schema, &answer.json(), path);
        assert!(errors.is_empty(), "{errors:#?} in {}", answer.text());
    }

    fn resolved(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => self
                .document
                .pointer(&reference[1..])
                .expect("a reference has a target"),
            None => schema,
        }
    }

    fn errors(&self, schema: &'a Value, value: &Value, path: &str) -> Vec<String> {
        let schema = self.resolved(schema);
        if let Some(branches) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
            let of_each: Vec<_> = branches.iter().map(|branch| self.errors(branch, value, path)).collect();
            let fits = of_each.iter().any(Vec::is_empty);
            return if fits { Vec::new() } else { of_each.concat() };
        }
        let kind = schema["type"].as_str().expect("a schema has a type");
        match (kind, value) {
            ("string", Value::String(_)) | ("null", Value::Null) | ("number", Value::Number(_)) => Vec::new(),
            ("integer", Value::Number(number)) if !number.is_f64() => Vec::new(),
            ("array", Value::Array(items)) => {
                let errors = items.iter().map(|item| self.errors(&schema["items"], item, path));
                errors.flatten().collect()
            }
            ("object", Value::Object(members)) => {
                let required = schema["required"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str);
                let missing = required.filter(|name| !members.contains_key(*name));
                let missing = missing.map(|name| format!("{path} has no {name}"));
                let inner = members.iter().flat_map(|(name, member)| {
                    let path = format!("{path}/{name}");
                    match (&schema["properties"][name], &schema["additionalProperties"]) {
                        (Value::Null, Value::Bool(true)) => Vec::new(),
                        (Value::Null, Value::Null) => vec![format!("{path} is not documented")],
                        (Value::Null, other) => self.errors(other, member, &path),
                        (property, _) => self.errors(property, member, &path),
                    }
                });
                missing.chain(inner).collect()
            }
            _ => vec![format!("{path} is no {kind}: {value}")],
        }
    }
}

async fn publish_preferring(service: &Service, preferences: &str, body: Value) -> Answer {
    ask(service.post("/publish").header("prefer", preferences).json(&body)).await
}

async fn answers_have_exactly_the_documented_members(world: World) {
    let service = world.serve().await;
    let document = service.json("/openapi.json").await;
    let documented = Documented { document: &document };
    let bad = json!({ "topic": "orders" });
    let all = "return=representation, handling=lenient";
    for (status, preferences, body) in [
        (201, "", json!(event("orders", "evt-1"))),
        (200, all, json!([event("orders", "evt-1")])),
        (201, all, json!([event("orders", "evt-2"), bad])),
        (202, "respond-async", json!(event("orders", "evt-3"))),
        (
            202,
            "respond-async, handling=lenient",
            json!([event("orders", "evt-4"), bad]),
        ),
        (422, "", bad.clone()),
    ] {
        let answer = publish_preferring(&service, preferences, body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        documented.check("post", "/publish", &answer);
    }
    documented.check("post", "/publish", &ask(service.post("/publish").body("{}")).await);
    documented.check("post", "/_flush", &ask(service.post("/_flush")).await);
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/health",
        "/healthz",
        "/events",
        "/stats",
        "/stats/history",
    ] {
        documented.check("get", path, &service.fetch(path).await);
    }
    for query in ["topic=orders", "format=array", "limit=0"] {
        documented.check("get", "/events", &service.fetch(&format!("/events?{query}")).await);
    }
    documented.check("get", "/stats", &service.fetch("/stats?topic=orders").await);
    world.check(4).await;
}

on_both_stores! { answers_have_exactly_the_documented_members }
