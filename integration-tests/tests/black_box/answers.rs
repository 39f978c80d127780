//! The memory of answers: pages end by bytes, and clients that do not read take no more than the budget.

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join_all;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{ask, try_ask};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, event, event_with_payload};
use integration_tests::service::Service;
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The size of a payload: close to the largest.
const PAYLOAD: usize = 250 << 10;

/// The most bytes of payloads in a page.
const PAGE: usize = 4 << 20;

/// Publishes large events.
async fn publish_large(service: &Service, topic: &str, count: usize) {
    for number in 0..count {
        // Different and hard to compress, so that the store cannot keep it small.
        let text: String = (0..PAYLOAD / 16)
            .map(|part| {
                let seed = (part + number * PAYLOAD) as u64;
                format!("{:016x}", seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
            })
            .collect();
        let body = event_with_payload(topic, &format!("evt-{number:03}"), &format!(r#"{{"text":"{text}"}}"#));
        let answer = service.publish_bytes("application/json", body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

fn ids(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().expect("events");
    events
        .iter()
        .map(|event| event["event_id"].as_str().expect("an id").to_owned())
        .collect()
}

/// Pages of lists end at 4 MiB in either order and by either index, and `next` and lines go on; small events beside them do not
/// change that.
async fn lists_end_by_bytes(world: World) {
    let service = world.serve().await;
    publish_large(&service, "large", 40).await;
    service.publish(&event("small", "evt-last")).await;
    let fits = PAGE / PAYLOAD;
    for filter in ["", "&topic=large"] {
        let mut seen = Vec::new();
        let mut page = service.json(&format!("/events?limit=1000{filter}")).await;
        while !ids(&page).is_empty() && seen.len() <= 41 {
            assert!(ids(&page).len() <= fits, "{} events", ids(&page).len());
            seen.extend(ids(&page));
            let next = page["next"].as_str().expect("a cursor").to_owned();
            page = service.json(&format!("/events?limit=1000{filter}&after={next}")).await;
        }
        let expected = (0..40).map(|number| format!("evt-{number:03}"));
        let last = filter.is_empty().then(|| "evt-last".to_owned());
        assert_eq!(seen, expected.chain(last).collect::<Vec<_>>(), "{filter}");

        let newest = service.json(&format!("/events?limit=1000&order=desc{filter}")).await;
        let found = ids(&newest);
        assert!(
            (fits - 1..=fits + 1).contains(&found.len()),
            "{filter}: {}",
            found.len()
        );
        let expected: Vec<String> = seen.iter().rev().take(found.len()).cloned().collect();
        assert_eq!(found, expected, "{filter}");
    }
    for order in ["asc", "desc"] {
        let lines = service
            .get(&format!("/events?order={order}"))
            .header("accept", "application/x-ndjson");
        let lines = ask(lines).await.lines();
        assert_eq!(lines.len(), 41, "{order}");
        let first = if order == "asc" { "evt-000" } else { "evt-last" };
        assert_eq!(lines[0]["event_id"], first);
    }
    assert_eq!(
        service.json("/events?topic=large&event_id=evt-007").await["count"],
        json!(1)
    );
    world.check(41).await;
}

/// Sends a request and reads nothing.
async fn unread(service: &Service, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(service.address()).await.expect("a connection");
    let head = format!("{request}\r\nhost: {}\r\n\r\n", service.address());
    stream.write_all(head.as_bytes()).await.expect("a request fits");
    stream
}

/// Many clients ask for the largest pages and do not read them: the memory stays bounded, publishing goes on, other readers are
/// told why they have to wait, and everything is as before once those clients are gone.
async fn unread_answers_take_only_their_budget(world: World) {
    let settings = world.settings().with("EVENTSIEVE_ANSWER_BYTES", "32MiB");
    let service = world.serve_with(settings).await;
    publish_large(&service, "large", 40).await;
    let before = service.resident_bytes();
    let mut clients = Vec::new();
    for number in 0..100 {
        clients.push(match number % 2 {
            0 => unread(&service, "GET /events?limit=1000 HTTP/1.1").await,
            _ => unread(&service, "GET /events HTTP/1.1\r\naccept: application/x-ndjson").await,
        });
    }
    let refused = eventually(SOON, async || {
        let answer = try_ask(service.get("/events?limit=1000")).await?;
        ensure!(answer.status == 503, "{}", answer.status);
        Ok(answer)
    })
    .await;
    let detail = refused.problem(503)["detail"].as_str().expect("a detail").to_owned();
    assert!(detail.contains("The memory for answers is used up"), "{detail}");
    for number in 0..50 {
        let answer = service.publish(&event("small", &format!("evt-{number}"))).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let bytes = service.metric("eventsieve_answer_bytes").await;
    assert!(bytes > 0.0 && bytes <= f64::from(32 << 20), "{bytes}");
    let grown = service.resident_bytes().saturating_sub(before);
    // The budget, the turns of the readers with a page each, and what the allocator keeps.
    assert!(grown < 160 << 20, "{grown} bytes more");
    drop(clients);
    eventually(SOON, async || {
        let answers = join_all((0..4).map(|_| try_ask(service.get("/events?limit=1000")))).await;
        for answer in answers {
            let answer = answer?;
            ensure!(answer.status == 200, "{}", answer.status);
        }
        ensure!(
            service.metric("eventsieve_answer_bytes").await == 0.0,
            "some are still held"
        );
        Ok(())
    })
    .await;
    world.check(90).await;
}

/// The results of a large batch that its client does not read take room, too, and are refused before anything is stored.
async fn unread_results_take_only_their_budget(world: World) {
    let settings = world.settings().with("EVENTSIEVE_ANSWER_BYTES", "16MiB");
    let service = world.serve_with(settings).await;
    let batch: Vec<Value> = (0..2000)
        .map(|number| event("orders", &format!("{number:0>250}")))
        .collect();
    let body = Value::from(batch).to_string();
    let head = format!(
        "POST /publish HTTP/1.1\r\nprefer: return=representation\r\ncontent-type: application/json\r\ncontent-length: {}",
        body.len()
    );
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = unread(&service, &head).await;
        client.write_all(body.as_bytes()).await.expect("a body is read");
        // The first byte of the answer: it was stored, and the rest is not read.
        let mut byte = [0];
        let answered = tokio::time::timeout(Duration::from_secs(20), client.read_exact(&mut byte)).await;
        answered.expect("an answer").expect("the connection stays");
        clients.push(client);
    }
    let status = |answer: Value| answer["status"].as_str().map(str::to_owned);
    let small = service.publish(&event("orders", "one more")).await;
    assert_eq!(small.status, 201);
    assert_eq!(status(small.json()).as_deref(), Some("success"));
    let stats = service.json("/stats").await;
    assert_eq!(stats["unique_processed"], 2001);
    drop(clients);
    world.check(2001).await;
}

/// Of a small request with many invalid events only the first are listed.
async fn rejected_events_are_listed_up_to_100(world: World) {
    let service = world.serve().await;
    let mut batch: Vec<Value> = (0..9999).map(|_| json!({})).collect();
    batch.push(event("orders", "evt-1"));
    for (preference, status) in [
        ("handling=lenient", 201),
        ("handling=lenient, return=representation", 200),
    ] {
        let answer = service
            .publish_preferring(preference, &Value::from(batch.clone()))
            .await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.body.len() < 64 << 10, "{} bytes", answer.body.len());
        let answer = answer.json();
        assert_eq!(answer["details"]["rejected"], 9999);
        let results = answer["results"].as_array().expect("results");
        let rejected = results.iter().filter(|result| result["status"] == "rejected").count();
        assert_eq!(rejected, 100);
        assert_eq!(results.len(), if status == 201 { 100 } else { 101 });
    }
    world.check(1).await;
}

on_both_stores! {
    lists_end_by_bytes
    unread_answers_take_only_their_budget
    unread_results_take_only_their_budget
    rejected_events_are_listed_up_to_100
}
