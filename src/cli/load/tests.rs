//! Whole runs against a small model of the service that fails on command.

use futures_util::StreamExt;
use tokio::time::Instant;

use super::{tally::Tally, *};
use crate::cli::fake::{Fake, Fault};

const EVENTS: u64 = 400;
const BATCH: u64 = 20;

fn a_plan(seed: u64) -> Plan {
    Plan {
        events: EVENTS,
        duplicates: 120,
        topics: NonZeroU64::new(4).unwrap(),
        seed,
        times: Times::FIXED,
    }
}

fn a_run(target: &Target, patience: Option<Duration>) -> Run {
    let client = Client::new(target.clone(), Duration::from_secs(5)).unwrap();
    Run::new(client, EVENTS, patience)
}

async fn publish(fake: &Fake, seed: u64, concurrency: usize) -> (anyhow::Result<()>, Tally) {
    let run = a_run(&fake.target, Some(Duration::from_secs(20)));
    let requests = paced(Generator::new(a_plan(seed), BATCH), None);
    let outcome = run.drive(requests, concurrency).await;
    (outcome, run.end())
}

/// Publishes one request after the other, and demands that everything adds up.
async fn publish_in_order(faults: &[(u64, Fault)]) -> (Fake, Tally) {
    let fake = Fake::start(faults.iter().copied()).await;
    let (outcome, tally) = publish(&fake, 1, 1).await;
    outcome.unwrap();
    tally.verify(&a_plan(1)).unwrap();
    assert_eq!(fake.counts().1, 280);
    (fake, tally)
}

#[tokio::test]
async fn publishes_everything_once_when_nothing_fails() {
    let (fake, tally) = publish_in_order(&[]).await;
    assert_eq!((fake.counts(), tally.resent()), ((EVENTS, 280), 0));
}

#[tokio::test]
async fn events_of_lost_attempts_are_counted_as_resent() {
    let faults = [
        (2, Fault::LostAfterStoring),
        (5, Fault::StoredAndStatus(504)),
        (9, Fault::LostBeforeStoring),
        (12, Fault::Status(502)),
    ];
    let (fake, tally) = publish_in_order(&faults).await;
    assert_eq!(tally.resent(), 4 * BATCH);
    assert_eq!(fake.counts().0, EVENTS + 2 * BATCH);
}

#[tokio::test]
async fn a_request_without_answer_is_sent_again() {
    let (fake, tally) = publish_in_order(&[(3, Fault::StoredAndSilent)]).await;
    assert_eq!((tally.resent(), fake.counts().0), (BATCH, EVENTS + BATCH));
}

#[tokio::test]
async fn waits_for_a_service_without_counting_resent_events() {
    let (fake, tally) = publish_in_order(&[
        (1, Fault::Status(503)),
        (2, Fault::Status(503)),
        (8, Fault::Status(429)),
    ])
    .await;
    assert_eq!((tally.resent(), fake.counts().0), (0, EVENTS));
}

#[tokio::test]
async fn concurrent_requests_with_any_faults_add_up() {
    for seed in 0..4 {
        let mut random = plan::Random::new(seed);
        let faults = (1..40).filter_map(|attempt| {
            let fault = match random.below(NonZeroU64::new(6)?) {
                0 => Fault::LostBeforeStoring,
                1 => Fault::LostAfterStoring,
                2 => Fault::StoredAndStatus(500),
                _ => return None,
            };
            Some((attempt, fault))
        });
        let fake = Fake::start(faults).await;
        let (outcome, tally) = publish(&fake, seed, 8).await;
        outcome.unwrap();
        tally.verify(&a_plan(seed)).unwrap();
        let (received, unique) = fake.counts();
        assert_eq!(unique, 280);
        let again = received - EVENTS;
        assert!(again <= tally.resent(), "{again} {}", tally.resent());
    }
}

#[tokio::test]
async fn a_service_that_counts_wrongly_is_found() {
    // Without duplicates, of which a later one would be stored in the place of the event that was forgotten.
    for (attempt, fault, duplicates) in [(4, Fault::OneUniqueTooMany, 120), (1, Fault::OneEventForgotten, 0)] {
        let fake = Fake::start([(attempt, fault)]).await;
        let plan = Plan {
            duplicates,
            ..a_plan(1)
        };
        let run = a_run(&fake.target, None);
        run.drive(paced(Generator::new(plan, BATCH), None), 1).await.unwrap();
        assert!(run.end().verify(&plan).is_err(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_rejected_request_ends_the_run_with_its_reason() {
    let fake = Fake::start([(3, Fault::Status(422))]).await;
    let (outcome, tally) = publish(&fake, 1, 1).await;
    assert_eq!(
        format!("{:#}", outcome.unwrap_err()),
        "events 41 to 60 were not published: rejected with status 422: no luck"
    );
    assert_eq!(tally.done().events, 40);
}

#[tokio::test]
async fn a_request_is_given_up_after_its_patience() {
    let fake = Fake::start([(1, Fault::Status(503))]).await;
    let run = a_run(&fake.target, Some(Duration::ZERO));
    let requests = paced(Generator::new(a_plan(1), BATCH), None);
    let error = run.drive(requests, 1).await.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "events 1 to 20 were not published: status 503: no luck"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_spaces_requests() {
    let plan = Plan {
        events: 100,
        duplicates: 0,
        ..a_plan(1)
    };
    let requests = paced(Generator::new(plan, 10), NonZeroU64::new(20));
    let begin = Instant::now();
    assert_eq!(requests.count().await, 10);
    assert_eq!(begin.elapsed().as_millis(), 4_500);
}
