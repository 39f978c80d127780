//! Events that a store would choke on: refused before the store, and if only the store notices, refused alone.

use anyhow::ensure;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, event, event_with_payload, events};
use integration_tests::service::Service;
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const JSON: &str = "application/json";

/// How many clients share their fate in the queue with the one whose event is refused.
const OTHERS: usize = 63;

async fn a_payload_that_no_store_can_hold_is_refused_before_it(world: World) {
    let service = world.serve().await;
    let long_literal = |length: usize| format!(r#"{{"a":0.{}}}"#, "1".repeat(length - 2));
    let refused = [
        r#"{"a":"\u0000"}"#.to_owned(),
        r#"{"\u0000":1}"#.to_owned(),
        r#"{"a":["deep",{"b":"x\u0000y"}]}"#.to_owned(),
        r#"{"a":"\ud800"}"#.to_owned(),
        r#"{"a":"\udc00"}"#.to_owned(),
        r#"{"a":"\ud800\ud800"}"#.to_owned(),
        r#"{"a":"\ud800\u0041"}"#.to_owned(),
        r#"{"a":"\ude00\ud83d"}"#.to_owned(),
        r#"{"\ud800":1}"#.to_owned(),
        r#"{"a":1e309}"#.to_owned(),
        r#"{"a":-1e309}"#.to_owned(),
        r#"{"a":1e131071}"#.to_owned(),
        r#"{"a":1e131072}"#.to_owned(),
        r#"{"a":1e400000}"#.to_owned(),
        r#"{"a":1e99999999999999999999}"#.to_owned(),
        r#"{"a":1e-400}"#.to_owned(),
        r#"{"a":1e-16384}"#.to_owned(),
        r#"{"a":[[1e-99999999999999999999]]}"#.to_owned(),
        format!(r#"{{"a":1{}}}"#, "0".repeat(400)),
        long_literal(1001),
    ];
    for payload in &refused {
        let body = event_with_payload("poison", "refused", payload);
        let faults = service.publish_bytes(JSON, body).await.faults();
        assert_eq!(
            faults,
            [("payload_unrepresentable".to_owned(), json!(["body", "payload"]))],
            "{payload:.80}"
        );
    }
    let accepted = [
        r#"{"a":"\u0001\u001f\u007f"}"#.to_owned(),
        r#"{"a":"\\u0000"}"#.to_owned(),
        r#"{"a":"\\\\ud800"}"#.to_owned(),
        r#"{"a":"\ud83d\ude00"}"#.to_owned(),
        r#"{"a":"\uD83D\uDE00\u00e9"}"#.to_owned(),
        r#"{"a":1e308,"b":-1.7976931348623157e308,"c":5e-324,"d":0,"e":-0.0,"f":0e0}"#.to_owned(),
        r#"{"b":1.0,"a":1e2,"b":2.10}"#.to_owned(),
        r#"{"a":9007199254740993,"b":0.1000000000000000055511151231257827}"#.to_owned(),
        r#"{}"#.to_owned(),
        format!(r#"{{"a":1{}}}"#, "0".repeat(300)),
        long_literal(1000),
    ];
    for (index, payload) in accepted.iter().enumerate() {
        let body = event_with_payload("poison", &format!("accepted-{index}"), payload);
        let answer = service.publish_bytes(JSON, body.clone()).await;
        assert_eq!(answer.status, 201, "{payload:.80}: {}", answer.text());
        // The same value in another dress makes the store compare, which it must be able to.
        let dressed = body.replace(r#""payload":{"#, r#""payload":{ "#);
        let again = service.publish_bytes(JSON, dressed).await;
        assert_eq!(again.status, 200, "{payload:.80}: {}", again.text());
        assert_eq!(again.json()["results"][0]["status"], "duplicate", "{payload:.80}");
    }
    let listed = service.fetch("/events?topic=poison").await;
    for payload in &accepted {
        assert!(
            listed.text().contains(payload.as_str()),
            "{payload:.80} came back otherwise"
        );
    }
    let rows = i64::try_from(accepted.len()).expect("a few");
    assert_eq!(world.check(rows).await.conflicts, 0);
}

async fn a_payload_must_be_an_object_of_json(world: World) {
    let service = world.serve().await;
    for payload in ["[]", "1", "null", "true", r#""text""#] {
        let body = event_with_payload("poison", "refused", payload);
        let faults = service.publish_bytes(JSON, body).await.faults();
        assert_eq!(
            faults,
            [("dict_type".to_owned(), json!(["body", "payload"]))],
            "{payload}"
        );
    }
    // A raw NUL or line feed inside a string, NaN and the like are no JSON at all.
    for payload in [
        "{\"a\":\"\0\"}",
        "{\"a\":\"\n\"}",
        r#"{"a":NaN}"#,
        r#"{"a":01}"#,
        r#"{"a":1,}"#,
    ] {
        let body = event_with_payload("poison", "refused", payload);
        let faults = service.publish_bytes(JSON, body).await.faults();
        assert_eq!(faults[0].0, "json_invalid", "{payload:?}");
    }
    for name in [r#""\u0000""#, r#""\ud800""#, r#""a\u0000b""#] {
        for member in ["topic", "event_id", "source"] {
            let good = event("orders", "evt-1");
            let body = good
                .to_string()
                .replace(&format!("{member:?}:{}", good[member]), &format!("{member:?}:{name}"));
            let answer = service.publish_bytes(JSON, body).await;
            assert_eq!(answer.status, 422, "{member} {name}: {}", answer.text());
        }
    }
    world.check(0).await;
}

/// A service with one writer, over a table that refuses the event `poison` for a reason that only the store knows.
async fn service_with_poison(world: &World) -> Service {
    let settings = world.settings().with("EVENTSIEVE_WRITERS", "1");
    let service = world.serve_with(settings).await;
    world.forbid_poison().await;
    service
}

/// Lets all these batches meet in the queue behind a writer that is held back, and gives back their answers in their order.
async fn publish_together(world: &World, service: &Service, prefer: &str, batches: &[Vec<Value>]) -> Vec<Answer> {
    let held = world.hold_writers().await;
    let plug = ask(service.post("/publish").json(&event("plug", prefer)));
    let mut requests = JoinSet::new();
    requests.spawn(async { (usize::MAX, plug.await) });
    world.writer_is_held(service).await;
    for (number, batch) in batches.iter().enumerate() {
        let request = service.post("/publish").header("prefer", prefer).json(batch);
        requests.spawn(async move { (number, ask(request).await) });
    }
    let events = batches.iter().map(Vec::len).sum::<usize>();
    eventually(SOON, async || {
        let queue = service.json("/stats").await["queue"].clone();
        let waiting = queue["events"].as_u64().unwrap_or(0);
        ensure!(usize::try_from(waiting)? >= events, "{queue}");
        Ok(())
    })
    .await;
    held.release().await;
    let mut answers = requests.join_all().await;
    answers.sort_by_key(|(number, _)| *number);
    let mut answers: Vec<Answer> = answers.into_iter().map(|(_, answer)| answer).collect();
    let plug = answers.pop().expect("the plug comes last");
    assert_eq!(plug.status, 201, "{}", plug.text());
    answers
}

fn batches_around(poisoned: Vec<Value>) -> Vec<Vec<Value>> {
    let mut batches: Vec<Vec<Value>> = (0..OTHERS)
        .map(|client| events(&format!("client-{client}"), 0..3))
        .collect();
    batches.insert(OTHERS / 2, poisoned);
    batches
}

async fn an_event_that_only_the_store_refuses_hurts_no_other_request(world: World) {
    let service = service_with_poison(&world).await;
    let poisoned = vec![
        event("mixed", "good-1"),
        event("mixed", "poison"),
        event("mixed", "good-2"),
    ];
    let answers = publish_together(
        &world,
        &service,
        "return=representation",
        &batches_around(poisoned.clone()),
    )
    .await;
    for (number, answer) in answers.iter().enumerate() {
        if number == OTHERS / 2 {
            assert_eq!(answer.faults()[0].0, "store_refused");
        } else {
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
    }
    let stored = 1 + OTHERS * 3;
    world.check(i64::try_from(stored).expect("a few")).await;

    // Alone it is refused as well, and the service goes on.
    let alone = service.publish(&event("mixed", "poison")).await;
    assert_eq!(alone.faults()[0].0, "store_refused");
    assert_eq!(service.publish(&event("mixed", "after")).await.status, 201);
    let totals = world.check(i64::try_from(stored + 1).expect("a few")).await;
    assert_eq!(totals.received, totals.rows, "what was refused is not received");
}

async fn a_lenient_request_loses_only_the_event_that_the_store_refuses(world: World) {
    let service = service_with_poison(&world).await;
    let poisoned = vec![
        event("mixed", "good-1"),
        event("mixed", "poison"),
        event("mixed", "good-2"),
        event("mixed", "good-1"),
    ];
    let answers = publish_together(&world, &service, "handling=lenient", &batches_around(poisoned)).await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, 201, "{}", answer.text());
        let body = answer.json();
        if number == OTHERS / 2 {
            assert_eq!(body["received"], 3, "{body}");
            assert_eq!(body["unique_processed"], 2, "{body}");
            assert_eq!(body["details"]["rejected"], 1, "{body}");
            assert_eq!(body["results"][0]["index"], 1, "{body}");
            assert_eq!(body["results"][0]["status"], "rejected", "{body}");
            assert_eq!(body["results"][0]["errors"][0]["type"], "store_refused", "{body}");
        } else {
            assert_eq!(body["unique_processed"], 3, "{body}");
        }
    }
    let stored = 1 + OTHERS * 3 + 2;
    world.check(i64::try_from(stored).expect("a few")).await;
}

async fn a_poisoned_request_that_was_accepted_in_advance_sinks_alone(world: World) {
    let service = service_with_poison(&world).await;
    let held = world.hold_writers().await;
    for batch in [
        json!([event("early", "a"), event("early", "b")]),
        json!([event("mixed", "good"), event("mixed", "poison")]),
        json!([event("late", "a"), event("late", "b")]),
    ] {
        let answer = service.publish_preferring("respond-async", &batch).await;
        assert_eq!(answer.status, 202);
    }
    held.release().await;
    assert_eq!(ask(service.post("/_flush")).await.status, 200);
    world.check(4).await;
}

on_both_stores! {
    a_payload_that_no_store_can_hold_is_refused_before_it
    a_payload_must_be_an_object_of_json
    an_event_that_only_the_store_refuses_hurts_no_other_request
    a_lenient_request_loses_only_the_event_that_the_store_refuses
    a_poisoned_request_that_was_accepted_in_advance_sinks_alone
}
