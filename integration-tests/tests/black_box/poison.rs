//! Events that a store would choke on: refused before the store, and if only the store notices, refused alone. What
//! is refused before is checked by the tester: `checks::payload`.

use anyhow::ensure;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, event, events};
use integration_tests::service::Service;
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How many clients share their fate in the queue with the one whose event is refused.
const OTHERS: usize = 63;

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
    an_event_that_only_the_store_refuses_hurts_no_other_request
    a_lenient_request_loses_only_the_event_that_the_store_refuses
    a_poisoned_request_that_was_accepted_in_advance_sinks_alone
}
