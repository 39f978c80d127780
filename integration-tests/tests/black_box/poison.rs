//! Poison events: events that only the store rejects. Other events of the same group commit are not affected. Events that are
//! rejected before they reach the store are checked by the tester: `checks::payload`.

use anyhow::ensure;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, event, events};
use integration_tests::service::Service;
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The number of other clients whose requests are in the same group commit as the poison event.
const OTHERS: usize = 63;

/// A service with one writer, whose store rejects the event `poison`.
async fn service_with_poison(world: &World) -> Service {
    let settings = world.settings().with("EVENTSIEVE_WRITERS", "1");
    let service = world.serve_with(settings).await;
    world.reject_poison().await;
    service
}

/// Publishes all batches while the writer is held back, so that they are committed together. Returns their answers in order.
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

async fn rejected_by_store_affects_no_other_request(world: World) {
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
            assert_eq!(answer.validation_errors()[0].0, "store_refused");
        } else {
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
    }
    let stored = 1 + OTHERS * 3;
    world.check(i64::try_from(stored).expect("a few")).await;

    // Alone it is rejected as well, and the service continues.
    let alone = service.publish(&event("mixed", "poison")).await;
    assert_eq!(alone.validation_errors()[0].0, "store_refused");
    assert_eq!(service.publish(&event("mixed", "after")).await.status, 201);
    let totals = world.check(i64::try_from(stored + 1).expect("a few")).await;
    assert_eq!(totals.received, totals.rows, "rejected events are not received");
}

async fn lenient_request_loses_only_the_poison_event(world: World) {
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

async fn accepted_request_with_poison_event_fails_alone(world: World) {
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
    rejected_by_store_affects_no_other_request
    lenient_request_loses_only_the_poison_event
    accepted_request_with_poison_event_fails_alone
}
