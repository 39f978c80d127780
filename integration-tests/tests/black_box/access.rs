//! Who may do what: keys, scopes, topics, limits.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use futures_util::StreamExt;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask, client, encoded};
use integration_tests::on_both_stores;
use integration_tests::postgres::PostgresServer;
use integration_tests::publish::{event, events};
use integration_tests::service::{Service, Settings};
use integration_tests::stream_subscriber::StreamSubscriber;
use integration_tests::world::World;
use reqwest::Method;
use serde_json::{Value, json};

/// A key of the operator's own making.
const ADMIN: &str = "an-admin-key-of-at-least-32-characters";

const SCOPES: [&str; 5] = ["publish", "read", "consume", "manage", "metrics"];

/// Settings under which nothing is allowed without a key.
fn closed(world: &World) -> Settings {
    let settings = world.settings().with("EVENTSIEVE_ANONYMOUS", "");
    settings.with("EVENTSIEVE_ADMIN_KEY", ADMIN)
}

/// Sends a request with this key, if there is one.
async fn send(service: &Service, method: &str, path: &str, key: Option<&str>, body: Option<&Value>) -> Answer {
    let method: Method = method.parse().expect("a method");
    let mut request = client().request(method, format!("{}{path}", service.url()));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    if let Some(body) = body {
        request = request
            .header("content-type", "application/json")
            .body(body.to_string());
    }
    ask(request).await
}

/// Subscribes from the beginning of the log with this key.
async fn subscribe(service: &Service, key: &str) -> StreamSubscriber {
    let request = client()
        .get(format!("{}/events/stream?after=", service.url()))
        .bearer_auth(key);
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    StreamSubscriber::of(response.bytes_stream().map(|bytes| Ok(bytes?)))
}

/// Makes a key with these members beside its name, and returns it and its id.
async fn make(service: &Service, mut members: Value) -> (String, String) {
    members["name"] = json!("test");
    let answer = send(service, "POST", "/keys", Some(ADMIN), Some(&members)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let made = answer.json();
    let text = |member: &str| made[member].as_str().expect("a text").to_owned();
    (text("key"), text("id"))
}

/// An operation of the OpenAPI document: the list of routes, and what each needs.
struct Operation {
    method: String,
    path: String,
    /// The scope that it needs.
    scope: Option<String>,
}

async fn operations(service: &Service) -> Vec<Operation> {
    let document = service.json("/openapi.json").await;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                scope: operation["security"][0]["key"][0].as_str().map(str::to_owned),
            });
        }
    }
    assert!(operations.len() > 15, "the document lists all routes");
    operations
}

impl Operation {
    /// A request that is valid for whoever may make it, and changes nothing that another one needs.
    fn request(&self, topic: &str) -> (String, Option<Value>) {
        let path = match self.path.as_str() {
            "/events" | "/stats" | "/conflicts" => format!("{}?topic={}", self.path, encoded(topic)),
            path => path
                .replace("{topic}", &encoded(topic))
                .replace("{event_id}", "evt-0")
                .replace("{id}", "000000000000"),
        };
        let body = match (self.method.as_str(), self.path.as_str()) {
            ("POST", "/publish") => Some(event(topic, "evt-0")),
            ("POST", "/keys") => Some(json!({"name": "n", "scopes": ["nothing"]})),
            ("POST", path) if path.ends_with("/rotate") => Some(json!({"overlap": "1h"})),
            ("PATCH", _) => Some(json!({})),
            _ => None,
        };
        (path, body)
    }

    async fn send(&self, service: &Service, topic: &str, key: Option<&str>) -> u16 {
        let (path, body) = self.request(topic);
        if self.path == "/events/stream" {
            // Its answer does not end.
            let mut request = client().get(format!("{}{path}", service.url()));
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            return request.send().await.expect("an answer").status().as_u16();
        }
        send(service, &self.method, &path, key, body.as_ref()).await.status
    }

    /// Whether what it answers is of the whole process, so that a key for some topics does not suffice.
    fn is_of_all_topics(&self) -> bool {
        ["/metrics", "/stats/history"].contains(&self.path.as_str())
    }
}

/// Credentials that must not work, each with its name.
async fn bad_credentials(world: &World, service: &Service) -> Vec<(&'static str, Option<String>)> {
    let (good, _) = make(service, json!({"scopes": SCOPES})).await;
    let last = if good.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &good[..good.len() - 1]);
    let (revoked, id) = make(service, json!({"scopes": SCOPES})).await;
    let answer = send(service, "DELETE", &format!("/keys/{id}"), Some(ADMIN), None).await;
    assert_eq!(answer.status, 204);
    let (expired, id) = make(service, json!({"scopes": SCOPES})).await;
    let past = match world.store_name() {
        "postgres" => "now() - interval '1 second'",
        _ => "1",
    };
    let expire = format!(
        "update access set version = version + 1;
         update keys set expires_at = {past}, version = (select version from access) where id = '{id}'"
    );
    world.execute(&expire).await;
    eventually(SOON, async || {
        let answer = send(service, "GET", "/topics", Some(&expired), None).await;
        ensure!(answer.status == 401, "the expired key still works");
        Ok(())
    })
    .await;
    vec![
        ("no key", None),
        ("a wrong key", Some(wrong)),
        ("an unknown key", Some(format!("esk_000000000000_{}", "0".repeat(40)))),
        ("a revoked key", Some(revoked)),
        ("an expired key", Some(expired)),
        ("another text", Some("key".to_owned())),
    ]
}

/// Every route with every kind of credential. What is expected follows from the scope that the route's description names.
async fn every_route_answers_every_credential_as_it_says(world: World) {
    const TOPIC: &str = "order.created";
    let mut service = world.serve_with(closed(&world)).await;
    let mut keys = Vec::new();
    for scope in SCOPES {
        keys.push((scope, true, make(&service, json!({"scopes": [scope]})).await.0));
        let some = json!({"scopes": [scope], "topics": ["order.*"]});
        keys.push((scope, false, make(&service, some).await.0));
    }
    let bad = bad_credentials(&world, &service).await;
    for operation in operations(&service).await {
        let what = format!("{} {}", operation.method, operation.path);
        for (name, key) in &bad {
            let status = operation.send(&service, TOPIC, key.as_deref()).await;
            assert_eq!(status == 401, operation.scope.is_some(), "{what} with {name}: {status}");
        }
        let status = operation.send(&service, TOPIC, Some(ADMIN)).await;
        assert!(![401, 403].contains(&status), "{what} with the admin key: {status}");
        for (scope, is_for_all, key) in &keys {
            let may = operation.scope.as_deref().is_none_or(|needed| needed == *scope);
            let may = may && (*is_for_all || !operation.is_of_all_topics());
            let status = operation.send(&service, TOPIC, Some(key)).await;
            assert_eq!(
                status == 403,
                !may,
                "{what} with {scope}, all topics {is_for_all}: {status}"
            );
            assert_ne!(status, 401, "{what} with {scope}");
            // Whether a topic exists makes no difference, but for publishing to it.
            let status = operation.send(&service, "payroll", Some(key)).await;
            let is_hidden = !is_for_all && operation.path == "/publish";
            assert_eq!(status == 403, !may || is_hidden, "{what} with {scope}: {status}");
        }
    }
    service.stop().await;
}

/// Stands in everything of a topic that a key must not learn of.
const MARKER: &str = "marker-of-b";

/// Everything that a key for `a.*` may ask for: the answers of the first list are searched for the marker; those of the second must be the
/// answers about a topic that does not exist.
const QUESTIONS: [&str; 18] = [
    "/events",
    "/events?limit=1",
    "/events?order=desc",
    "/events?offset=1&format=array",
    "/events?after=",
    "/events?after=&limit=1",
    "/events?since=2000-01-01T00:00:00Z",
    "/topics",
    "/topics?prefix=b",
    "/topics?prefix=&limit=1000",
    "/conflicts",
    "/stats",
    "/stats/history",
    "/metrics",
    "/health",
    "/keys",
    "/readyz",
    "/openapi.json",
];
const QUESTIONS_BY_NAME: [&str; 6] = [
    "/events?topic=TOPIC",
    "/events?topic=TOPIC&after=",
    "/events?topic=TOPIC&order=desc",
    "/conflicts?topic=TOPIC",
    "/stats?topic=TOPIC",
    "/topics/TOPIC/events/ID",
];

/// An event of the topic that a key must not learn of.
fn hidden(id: &str) -> Value {
    let mut hidden = event(&format!("b.{MARKER}"), &format!("{MARKER}-{id}"));
    hidden["source"] = json!(MARKER);
    hidden["payload"] = json!({"text": MARKER});
    hidden
}

/// A service with two events of `a.*`, and with two and a conflict that are hidden; and a key for `a.*` that may do everything.
async fn with_hidden_events(world: &World) -> (Service, String) {
    let service = world.serve_with(closed(world)).await;
    let mut conflicting = hidden("1");
    conflicting["payload"] = json!({"other": MARKER});
    let seeded = json!([
        event("a.x", "1"),
        hidden("1"),
        hidden("2"),
        event("a.y", "1"),
        conflicting
    ]);
    let answer = send(&service, "POST", "/publish", Some(ADMIN), Some(&seeded)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let (key, _) = make(&service, json!({"scopes": SCOPES, "topics": ["a.*"]})).await;
    eventually(SOON, async || {
        let page = send(&service, "GET", "/events?after=", Some(&key), None).await.json();
        ensure!(page["count"] == 2, "{page}");
        Ok(())
    })
    .await;
    (service, key)
}

/// No byte of any answer tells of another topic.
async fn key_for_some_topics_learns_nothing_of_others(world: World) {
    let (mut service, key) = with_hidden_events(&world).await;
    for path in QUESTIONS {
        let answer = send(&service, "GET", path, Some(&key), None).await;
        assert!(!answer.text().contains(MARKER), "{path}: {}", answer.text());
        let lines = client().get(format!("{}{path}", service.url())).bearer_auth(&key);
        let answer = ask(lines.header("accept", "application/x-ndjson")).await;
        assert!(!answer.text().contains(MARKER), "{path} as lines: {}", answer.text());
    }
    for path in QUESTIONS_BY_NAME {
        let of = async |topic: &str, id: &str| {
            let path = path.replace("TOPIC", topic).replace("ID", id);
            let answer = send(&service, "GET", &path, Some(&key), None).await;
            // The topic that was asked for is repeated, and each answer has an id of its own.
            let text = answer.text().replace(topic, "TOPIC");
            (answer.status, text.replace(answer.header("x-request-id"), ""))
        };
        let of_hidden = of(&format!("b.{MARKER}"), &format!("{MARKER}-1")).await;
        let of_missing = of("b.no-such-topic", "no-such-event").await;
        assert_eq!(of_hidden, of_missing, "{path}");
    }
    let stats = send(&service, "GET", "/stats", Some(&key), None).await.json();
    for (member, expected) in [
        ("received", 2),
        ("conflicts", 0),
        ("topic_count", 2),
        ("database_total_rows", 2),
    ] {
        assert_eq!(stats[member], expected, "{member}");
    }
    assert_eq!(stats["topics"], json!({"a.x": 1, "a.y": 1}));
    service.stop().await;
    world.check(4).await;
}

/// Nor does an attempt to publish to another topic tell whether an event of it exists. Leniently, the others are stored.
async fn event_of_another_topic_is_refused(world: World) {
    let (mut service, key) = with_hidden_events(&world).await;
    for id in ["1", "9"] {
        let batch = json!([event("a.x", "2"), hidden(id)]);
        let answer = send(&service, "POST", "/publish", Some(&key), Some(&batch)).await;
        answer.problem(403);
        let lenient = client().post(format!("{}/publish", service.url())).bearer_auth(&key);
        let lenient = lenient
            .header("prefer", "handling=lenient")
            .header("content-type", "application/json");
        let batch = json!([event("a.x", "3"), hidden(id), event("a.x", "1")]);
        let answer = ask(lenient.body(batch.to_string())).await.json();
        assert_eq!(answer["details"]["rejected"], 1, "{answer}");
        let rejected = &answer["results"][0];
        assert_eq!(
            (&rejected["index"], &rejected["status"]),
            (&json!(1), &json!("rejected"))
        );
        assert_eq!(rejected["errors"][0]["type"], "topic_forbidden");
        assert_eq!(rejected["errors"][0]["loc"], json!(["body", 1, "topic"]));
    }
    let flushed = send(&service, "POST", "/_flush", Some(&key), None).await;
    assert_eq!(flushed.json(), json!({"flushed": 0}));
    service.stop().await;
    world.check(5).await;
}

async fn stream_shows_only_matching_topics(world: World) {
    let mut service = world.serve_with(closed(&world)).await;
    let (key, _) = make(&service, json!({"scopes": ["read"], "topics": ["a.*", "c"]})).await;
    let mut subscriber = subscribe(&service, &key).await;
    for round in 0..3 {
        let batch = json!([
            event("a.x", &round.to_string()),
            event("b", &round.to_string()),
            event("c", &round.to_string())
        ]);
        send(&service, "POST", "/publish", Some(ADMIN), Some(&batch)).await;
    }
    let seen = subscriber.collect(6, SOON).await;
    let topics: BTreeSet<String> = seen.iter().map(|frame| frame.json()["topic"].to_string()).collect();
    assert_eq!(topics, BTreeSet::from([r#""a.x""#.to_owned(), r#""c""#.to_owned()]));
    drop(subscriber);
    service.stop().await;
}

/// On every replica: what a revoked key publishes is refused, and its streams end.
async fn revoked_key_ends_on_every_replica(world: World) {
    let mut replicas = Vec::new();
    let count = if world.store_name() == "postgres" { 3 } else { 1 };
    for _ in 0..count {
        replicas.push(world.serve_with(closed(&world)).await);
    }
    let (key, id) = make(&replicas[0], json!({"scopes": ["publish", "read"]})).await;
    let mut subscribers = Vec::new();
    for (number, service) in replicas.iter().enumerate() {
        eventually(SOON, async || {
            let sent = event("t", &number.to_string());
            let answer = send(service, "POST", "/publish", Some(&key), Some(&sent)).await;
            ensure!(answer.status < 300, "a new key is not known yet: {}", answer.status);
            Ok(())
        })
        .await;
        subscribers.push(subscribe(service, &key).await);
    }
    let answer = send(&replicas[0], "DELETE", &format!("/keys/{id}"), Some(ADMIN), None).await;
    assert_eq!(answer.status, 204);
    let revoked = std::time::Instant::now();
    for subscriber in &mut subscribers {
        subscriber.rest().await;
    }
    for service in &replicas {
        eventually(SOON, async || {
            let answer = send(service, "POST", "/publish", Some(&key), Some(&event("t", "late"))).await;
            ensure!(answer.status == 401, "a revoked key still works: {}", answer.status);
            Ok(())
        })
        .await;
    }
    // Within two seconds on a machine that does nothing else; here other tests run.
    assert!(revoked.elapsed() < Duration::from_secs(20), "{:?}", revoked.elapsed());
    for mut service in replicas {
        service.stop().await;
    }
}

async fn rotated_key_has_two_secrets_for_a_while(world: World) {
    let mut service = world.serve_with(closed(&world)).await;
    let (first, id) = make(&service, json!({"scopes": ["read"]})).await;
    let rotate = async |overlap: &str| {
        let body = json!({"overlap": overlap});
        let answer = send(
            &service,
            "POST",
            &format!("/keys/{id}/rotate"),
            Some(ADMIN),
            Some(&body),
        )
        .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["key"].as_str().expect("a key").to_owned()
    };
    let status = async |key: &str| send(&service, "GET", "/topics", Some(key), None).await.status;
    let second = rotate("1h").await;
    assert_eq!((status(&first).await, status(&second).await), (200, 200));
    let third = rotate("0s").await;
    assert_eq!(
        (status(&first).await, status(&second).await, status(&third).await),
        (401, 401, 200)
    );
    for wrong in ["", "soon", "31d"] {
        let body = json!({"overlap": wrong});
        let answer = send(
            &service,
            "POST",
            &format!("/keys/{id}/rotate"),
            Some(ADMIN),
            Some(&body),
        )
        .await;
        assert_eq!(
            answer.validation_errors(),
            [("string_pattern_mismatch".to_owned(), json!(["body", "overlap"]))]
        );
    }
    service.stop().await;
}

async fn keys_are_made_changed_and_listed(world: World) {
    let mut service = world.serve_with(closed(&world)).await;
    let body = json!({"scopes": ["publish", "manage"], "topics": ["a.*"], "limits": {"events_per_second": 5}});
    let (key, id) = make(&service, body).await;
    let change = json!({"name": "renamed", "limits": {"bytes_per_second": 7}, "expires_at": "2999-01-01T00:00:00Z"});
    let answer = send(&service, "PATCH", &format!("/keys/{id}"), Some(ADMIN), Some(&change)).await;
    let changed = answer.json();
    assert_eq!(
        (&changed["name"], &changed["limits"]["bytes_per_second"]),
        (&json!("renamed"), &json!(7))
    );
    assert_eq!(
        (&changed["scopes"], &changed["topics"]),
        (&json!(["publish", "manage"]), &json!(["a.*"]))
    );
    let answer = send(
        &service,
        "PATCH",
        &format!("/keys/{id}"),
        Some(ADMIN),
        Some(&json!({"expires_at": null})),
    )
    .await;
    assert_eq!(answer.json()["expires_at"], Value::Null);
    let listed = send(&service, "GET", "/keys", Some(ADMIN), None).await;
    assert_eq!(listed.json()["keys"][0]["id"], id);
    let secret = key.rsplit('_').next().expect("a secret");
    assert!(!listed.text().contains(secret), "no secret is shown again");

    service.stop().await;
}

async fn keys_are_listed_page_by_page(world: World) {
    let mut service = world.serve_with(closed(&world)).await;
    let mut made = BTreeSet::new();
    for _ in 0..5 {
        made.insert(make(&service, json!({"scopes": ["read"]})).await.1);
    }
    let (mut seen, mut path) = (Vec::new(), "/keys?limit=2".to_owned());
    loop {
        let page = send(&service, "GET", &path, Some(ADMIN), None).await.json();
        let keys = page["keys"].as_array().expect("keys");
        seen.extend(keys.iter().map(|key| key["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/keys?limit=2&after={next}");
    }
    assert_eq!(seen, Vec::from_iter(made), "by id, each once");
    service.stop().await;
}

/// A key sees and makes only what it covers.
async fn key_makes_only_what_it_covers(world: World) {
    let mut service = world.serve_with(closed(&world)).await;
    let (key, _) = make(&service, json!({"scopes": ["publish", "manage"], "topics": ["a.*"]})).await;
    let (_, other) = make(&service, json!({"scopes": ["publish"], "topics": ["b"]})).await;
    let listed = send(&service, "GET", "/keys", Some(&key), None).await.json();
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed["next"], Value::Null, "not even the id of a hidden key is told");
    for body in [
        json!({"name": "n", "scopes": ["read"], "topics": ["a.*"]}),
        json!({"name": "n", "scopes": ["publish"], "topics": ["a*"]}),
        json!({"name": "n", "scopes": ["publish"]}),
    ] {
        send(&service, "POST", "/keys", Some(&key), Some(&body))
            .await
            .problem(403);
    }
    let narrower = json!({"name": "n", "scopes": ["publish"], "topics": ["a.b.*"]});
    assert_eq!(
        send(&service, "POST", "/keys", Some(&key), Some(&narrower))
            .await
            .status,
        201
    );
    for (method, path) in [
        ("DELETE", format!("/keys/{other}")),
        ("DELETE", "/keys/nonsense".to_owned()),
    ] {
        send(&service, method, &path, Some(&key), None).await.problem(404);
    }
    service.stop().await;
}

async fn invalid_key_is_explained(world: World) {
    let mut service = world.serve_with(closed(&world)).await;
    for (body, member) in [
        (json!({"name": "", "scopes": ["read"]}), "name"),
        (json!({"name": "n\n", "scopes": ["read"]}), "name"),
        (json!({"name": "n", "scopes": []}), "scopes"),
        (json!({"name": "n", "scopes": ["all"]}), "scopes"),
        (json!({"name": "n", "scopes": ["read"], "topics": ["a b"]}), "topics"),
        (
            json!({"name": "n", "scopes": ["read"], "topics": vec!["a"; 65]}),
            "topics",
        ),
        (
            json!({"name": "n", "scopes": ["read"], "limits": {"events_per_second": 0}}),
            "limits",
        ),
        (json!({"name": "n", "scopes": ["read"], "limits": [1, 1]}), "limits"),
    ] {
        let answer = send(&service, "POST", "/keys", Some(ADMIN), Some(&body)).await;
        assert_eq!(answer.validation_errors()[0].1, json!(["body", member]), "{body}");
    }
    let answer = send(
        &service,
        "POST",
        "/keys",
        Some(ADMIN),
        Some(&json!({"name": "n", "scope": []})),
    )
    .await;
    assert_eq!(answer.validation_errors()[0].0, "json_invalid");
    let large = json!({"name": "n".repeat(70_000), "scopes": ["read"]});
    send(&service, "POST", "/keys", Some(ADMIN), Some(&large))
        .await
        .problem(413);
    service.stop().await;
}

/// A key beyond its limit is told when to come again, and no other key is disturbed.
async fn limit_of_a_key_is_its_own(world: World) {
    let mut service = world.serve_with(closed(&world)).await;
    let (limited, _) = make(
        &service,
        json!({"scopes": ["publish"], "limits": {"events_per_second": 10}}),
    )
    .await;
    let (free, _) = make(&service, json!({"scopes": ["publish"]})).await;
    let publish = async |key: &str, numbers: std::ops::Range<usize>| {
        let batch = Value::from(events("t", numbers));
        send(&service, "POST", "/publish", Some(key), Some(&batch)).await
    };
    assert_eq!(
        publish(&limited, 0..100).await.status,
        201,
        "ten seconds' worth at once"
    );
    let refused = publish(&limited, 100..200).await;
    refused.problem(429);
    let seconds: u32 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=10).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("ratelimit-policy"), "\"events\";q=100;w=10");
    assert!(
        refused.header("ratelimit").starts_with("\"events\";r="),
        "{}",
        refused.header("ratelimit")
    );
    publish(&limited, 0..101).await.problem(413);
    for number in 0..20 {
        assert_eq!(
            publish(&free, 1000 + number * 100..1100 + number * 100).await.status,
            201
        );
    }
    eventually(SOON, async || {
        let answer = publish(&limited, 5000..5001).await;
        ensure!(answer.status == 201, "{}", answer.status);
        Ok(())
    })
    .await;
    let (by_bytes, _) = make(
        &service,
        json!({"scopes": ["publish"], "limits": {"bytes_per_second": 100}}),
    )
    .await;
    assert_eq!(publish(&by_bytes, 6000..6001).await.status, 201);
    publish(&by_bytes, 6000..6100).await.problem(413);
    service.stop().await;
    world.check(100 + 2000 + 1 + 1).await;
}

/// Basic is for shippers that know nothing else.
async fn key_may_be_the_password_of_basic(world: World) {
    let mut service = world.serve_with(closed(&world)).await;
    let (key, _) = make(&service, json!({"scopes": ["read"]})).await;
    let ask_with = async |password: &str| {
        let request = client().get(format!("{}/topics", service.url()));
        ask(request.basic_auth("anybody", Some(password))).await
    };
    assert_eq!(ask_with(&key).await.status, 200);
    let refused = ask_with("wrong").await;
    refused.problem(401);
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    service.stop().await;
}

async fn health_without_read_says_only_its_status(world: World) {
    let mut service = world.serve_with(closed(&world)).await;
    let health = send(&service, "GET", "/health", None, None).await;
    assert_eq!((health.status, health.json()), (200, json!({"status": "healthy"})));
    let whole = send(&service, "GET", "/health", Some(ADMIN), None).await.json();
    assert_eq!(whole["store"]["kind"], world.store_name());
    service.stop().await;
}

/// Without its own key, and without anybody's, a service on the network serves nobody, and says so.
async fn service_on_the_network_needs_keys_or_says_what_is_open(world: World) {
    let settings = world.settings().with("HOST", "0.0.0.0");
    let refused = settings.clone().run().await;
    refused.ended_with(64);
    let last = refused.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("EVENTSIEVE_ANONYMOUS") && last.contains("eventsieve keys create"),
        "{}",
        refused.stderr
    );
    for (variable, value) in [("EVENTSIEVE_ANONYMOUS", "publish"), ("EVENTSIEVE_ADMIN_KEY", ADMIN)] {
        let mut service = world.serve_with(settings.clone().with(variable, value)).await;
        assert_eq!(send(&service, "GET", "/topics", None, None).await.status, 401);
        service.stop().await;
    }
    let made = world
        .run(&["keys", "create", "--name", "first", "--scope", "read"])
        .await;
    made.ended_with(0);
    let mut service = world.serve_with(settings).await;
    let key = made.stdout.trim();
    assert_eq!(send(&service, "GET", "/topics", Some(key), None).await.status, 200);
    service.stop().await;
    for wrong in ["short", "a key with blanks, of more than 32 characters"] {
        let refused = world.settings().with("EVENTSIEVE_ADMIN_KEY", wrong).run().await;
        refused.ended_with(64);
        assert!(!refused.stderr.contains(wrong), "{}", refused.stderr);
    }
}

/// The command works on the store, beside the service.
async fn command_makes_lists_rotates_and_revokes(world: World) {
    let mut service = world.serve_with(closed(&world)).await;
    let create = [
        "keys",
        "create",
        "--name",
        "shop",
        "--scope",
        "publish,read",
        "--topics",
        "order.*,log",
        "--json",
    ];
    let made = world.run(&create).await;
    made.ended_with(0);
    let made: Value = serde_json::from_str(made.stdout.trim()).expect("JSON");
    let (key, id) = (
        made["key"].as_str().expect("a key"),
        made["id"].as_str().expect("an id"),
    );
    let status = async |key: &str, expected: u16| {
        eventually(SOON, async || {
            let answer = send(&service, "GET", "/topics", Some(key), None).await;
            ensure!(answer.status == expected, "{}", answer.status);
            Ok(())
        })
        .await;
    };
    status(key, 200).await;
    let listed = world.run(&["keys", "list"]).await;
    let row = listed.stdout.lines().find(|line| line.starts_with(id)).expect("a row");
    assert!(
        row.contains("shop") && row.contains("publish,read") && row.contains("order.*,log"),
        "{row}"
    );
    assert!(!listed.stdout.contains(key.rsplit('_').next().expect("a secret")));
    let rotated = world.run(&["keys", "rotate", id, "--overlap", "0s"]).await;
    rotated.ended_with(0);
    status(rotated.stdout.trim(), 200).await;
    status(key, 401).await;
    // Commands present the key of their environment.
    let with_key = |arguments: &[&str], key: &str| world.settings().arguments(arguments).with("EVENTSIEVE_KEY", key);
    let topics = with_key(&["topics", "--url", service.url()], rotated.stdout.trim())
        .run()
        .await;
    topics.ended_with(0);
    for _ in 0..2 {
        world.run(&["keys", "revoke", id]).await.ended_with(0);
    }
    status(rotated.stdout.trim(), 401).await;
    let refused = with_key(&["topics", "--url", service.url()], rotated.stdout.trim())
        .run()
        .await;
    refused.ended_with(1);
    assert!(
        refused.stderr.contains("401") && refused.stderr.contains("key"),
        "{}",
        refused.stderr
    );
    for (arguments, code) in [
        (&["keys", "revoke", "000000000000"][..], 1),
        (&["keys", "revoke", "nonsense"], 64),
        (&["keys", "rotate", id], 1),
        (&["keys", "create", "--name", "n", "--scope", "all"], 64),
        (&["keys", "create", "--name", "", "--scope", "read"], 64),
    ] {
        world.run(arguments).await.ended_with(code);
    }
    service.stop().await;
}

/// What may be done without a key is what is said, on loopback everything.
async fn anonymous_may_do_what_is_said(world: World) {
    let mut service = world.serve().await;
    assert_eq!(send(&service, "GET", "/keys", None, None).await.status, 200);
    send(&service, "GET", "/topics", Some("wrong"), None).await.problem(401);
    service.stop().await;
    let mut service = world
        .serve_with(world.settings().with("EVENTSIEVE_ANONYMOUS", "publish,metrics"))
        .await;
    assert_eq!(
        send(&service, "POST", "/publish", None, Some(&event("t", "1")))
            .await
            .status,
        201
    );
    assert_eq!(send(&service, "GET", "/metrics", None, None).await.status, 200);
    send(&service, "GET", "/events", None, None).await.problem(401);
    send(&service, "GET", "/keys", None, None).await.problem(401);
    service.stop().await;
}

/// While the store is away a known key gets what it got, and of an unknown one nothing can be said.
#[tokio::test]
async fn known_key_stays_known_while_the_store_is_away() {
    let mut server = PostgresServer::new().await;
    let world = World::on(&server).await;
    let mut service = world.serve_with(closed(&world)).await;
    let (key, _) = make(&service, json!({"scopes": ["publish", "metrics"]})).await;
    let unknown = format!("esk_000000000000_{}", "0".repeat(40));
    send(&service, "GET", "/metrics", Some(&unknown), None)
        .await
        .problem(401);
    server.stop().await;
    eventually(SOON, async || {
        let status = send(&service, "GET", "/metrics", Some(&unknown), None).await.status;
        ensure!(status == 503, "{status}");
        Ok(())
    })
    .await;
    assert_eq!(send(&service, "GET", "/metrics", Some(&key), None).await.status, 200);
    send(&service, "POST", "/publish", Some(&key), Some(&event("t", "1")))
        .await
        .problem(503);
    send(&service, "GET", "/topics", Some(&key), None).await.problem(403);
    send(&service, "GET", "/metrics", Some("nonsense"), None)
        .await
        .problem(401);
    service.kill().await;
}

/// At any level of the log, and in `/metrics`, there is no secret.
async fn no_secret_is_shown(world: World) {
    let mut service = world.serve_with(closed(&world).with("RUST_LOG", "trace")).await;
    let (key, id) = make(&service, json!({"scopes": SCOPES})).await;
    let rotated = send(
        &service,
        "POST",
        &format!("/keys/{id}/rotate"),
        Some(ADMIN),
        Some(&json!({"overlap": "1h"})),
    )
    .await;
    let rotated = rotated.json()["key"].as_str().expect("a key").to_owned();
    let mut shown = String::new();
    for key in [&key, &rotated] {
        for path in ["/topics", "/metrics", "/keys", "/health", "/no-such-path"] {
            let answer = send(&service, "GET", path, Some(key), None).await;
            shown.push_str(answer.text());
        }
        send(&service, "POST", "/publish", Some(key), Some(&event("t", "1"))).await;
    }
    service.stop().await;
    let log = service.log();
    assert!(log.contains("created a key") && log.contains("rotated a key") && log.contains("\"principal\":\"admin\""));
    for secret in [ADMIN, &key, &rotated].map(|key| key.rsplit('_').next().unwrap_or(key)) {
        assert!(!log.contains(secret) && !shown.contains(secret), "a secret is shown");
    }
}

on_both_stores! {
    every_route_answers_every_credential_as_it_says
    key_for_some_topics_learns_nothing_of_others
    event_of_another_topic_is_refused
    stream_shows_only_matching_topics
    revoked_key_ends_on_every_replica
    rotated_key_has_two_secrets_for_a_while
    keys_are_made_changed_and_listed
    keys_are_listed_page_by_page
    key_makes_only_what_it_covers
    invalid_key_is_explained
    limit_of_a_key_is_its_own
    key_may_be_the_password_of_basic
    health_without_read_says_only_its_status
    service_on_the_network_needs_keys_or_says_what_is_open
    command_makes_lists_rotates_and_revokes
    anonymous_may_do_what_is_said
    no_secret_is_shown
}
