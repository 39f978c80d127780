//! Writers on a fake store that fails on command, in paused time.

mod fake;
mod gathering;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use self::fake::{Behave, Fake, FakeStore};
use super::*;
use crate::event::parse_json;
use crate::metrics::{CommitOutcome, OutcomeLabel};

const DEADLINE: Duration = Duration::from_secs(15);

struct Bench {
    fake: Arc<Fake>,
    ingest: Ingest,
    writers: tokio::task::JoinSet<()>,
}

/// An ingest with some writers on a fake store that begins with a script.
fn bench(writers: u32, script: impl IntoIterator<Item = Behave>) -> Bench {
    let fake = Arc::new(Fake {
        script: Mutex::new(script.into_iter().collect()),
        ..Fake::default()
    });
    let settings = IngestConfig {
        request_deadline: DEADLINE,
        writers,
        queue_events_max: 100,
        queue_bytes_max: 1 << 20,
    };
    let store = Arc::new(FakeStore(fake.clone()));
    let (ingest, made) = Ingest::new(settings, store, Arc::default(), Arc::new(HandoffQueue::new(None)));
    let mut writers = tokio::task::JoinSet::new();
    for writer in made {
        writers.spawn(writer.run());
    }
    Bench { fake, ingest, writers }
}

impl Bench {
    fn submission(&self, ids: &[&str], handling: Handling) -> Submission {
        let event = |id: &&str| {
            format!(r#"{{"topic":"t","event_id":"{id}","timestamp":"2025-01-01T00:00Z","source":"s","payload":{{}}}}"#)
        };
        let body = format!("[{}]", ids.iter().map(event).collect::<Vec<_>>().join(","));
        let events = parse_json(&Bytes::from(body), 1000).unwrap().events;
        let mut reservation = self.ingest.bytes().reserve();
        reservation.grow(1000).unwrap();
        Submission {
            events,
            reservation,
            handling,
            trace: None,
            client: None,
        }
    }

    async fn submit(&self, ids: &[&str]) -> Result<Vec<EventOutcome>, SubmitError> {
        self.ingest.submit(self.submission(ids, Handling::Strict)).await
    }

    fn received(&self) -> usize {
        *self.fake.received.lock().unwrap()
    }
}

fn words(outcomes: &[EventOutcome]) -> Vec<&'static str> {
    let word = |outcome: &EventOutcome| match outcome {
        EventOutcome::Stored(_) => "stored",
        EventOutcome::Duplicate(_) => "duplicate",
        EventOutcome::Conflict(_) => "conflict",
        EventOutcome::Refused => "refused",
    };
    outcomes.iter().map(word).collect()
}

#[tokio::test(start_paused = true)]
async fn answers_each_request_in_its_own_order() {
    let bench = bench(1, []);
    let (first, second) = tokio::join!(bench.submit(&["b", "a", "b"]), bench.submit(&["c", "a"]));
    assert_eq!(words(&first.unwrap()), ["stored", "stored", "duplicate"]);
    assert_eq!(words(&second.unwrap()), ["stored", "duplicate"]);
    assert_eq!(bench.ingest.queued(), 0);
    assert_eq!(bench.ingest.bytes().taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn retries_a_failure_that_stored_nothing() {
    let classes = [
        ErrorClass::Contention,
        ErrorClass::LostRace,
        ErrorClass::NotSent,
        ErrorClass::StalePlan,
    ];
    let bench = bench(1, classes.map(Behave::Fail));
    assert_eq!(words(&bench.submit(&["a"]).await.unwrap()), ["stored"]);
    assert_eq!(bench.received(), 1);
}

#[tokio::test(start_paused = true)]
async fn answers_from_the_ledger_after_a_lost_reply() {
    let bench = bench(
        1,
        [
            Behave::CommitAndFail(ErrorClass::Ambiguous),
            Behave::Fail(ErrorClass::NotSent),
        ],
    );
    assert_eq!(words(&bench.submit(&["a", "b"]).await.unwrap()), ["stored", "stored"]);
    assert_eq!(bench.received(), 2);
}

#[tokio::test(start_paused = true)]
async fn stores_nothing_after_a_503_at_the_deadline() {
    let bench = bench(1, []);
    *bench.fake.outage.lock().unwrap() = Some(ErrorClass::NotSent);
    let begun = Instant::now();
    assert_eq!(bench.submit(&["a"]).await, Err(SubmitError::TooLate));
    assert_eq!(begun.elapsed(), DEADLINE);
    assert_eq!((bench.ingest.queued(), bench.ingest.bytes().taken()), (0, 0));
    *bench.fake.outage.lock().unwrap() = None;
    assert_eq!(words(&bench.submit(&["b"]).await.unwrap()), ["stored"]);
    assert_eq!(
        bench.received(),
        1,
        "the request that was answered 503 must not be stored after all"
    );
}

#[tokio::test(start_paused = true)]
async fn is_unknown_after_an_ambiguous_attempt() {
    let bench = bench(
        1,
        [Behave::Fail(ErrorClass::Ambiguous)]
            .into_iter()
            .chain([Behave::Fail(ErrorClass::NotSent); 1000]),
    );
    assert_eq!(bench.submit(&["a"]).await, Err(SubmitError::Unknown));
}

#[tokio::test(start_paused = true)]
async fn pings_an_idle_connection_before_a_commit() {
    let bench = bench(2, []);
    assert_eq!(words(&bench.submit(&["a"]).await.unwrap()), ["stored"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    *bench.fake.cuts.lock().unwrap() += 1;
    *bench.fake.outage.lock().unwrap() = Some(ErrorClass::NotSent);
    assert_eq!(
        bench.submit(&["b"]).await,
        Err(SubmitError::TooLate),
        "no commit was tried, so this is no 504"
    );
    *bench.fake.outage.lock().unwrap() = None;
    assert_eq!(words(&bench.submit(&["b"]).await.unwrap()), ["stored"]);
}

#[tokio::test(start_paused = true)]
async fn sends_again_when_an_attempt_hangs() {
    let bench = bench(1, [Behave::Hang]);
    assert_eq!(words(&bench.submit(&["a"]).await.unwrap()), ["stored"]);
}

#[tokio::test(start_paused = true)]
async fn gives_up_after_repeated_unexpected_errors() {
    let bench = bench(1, [Behave::Fail(ErrorClass::Unexpected); 5]);
    let begun = Instant::now();
    assert_eq!(bench.submit(&["a"]).await, Err(SubmitError::Unknown));
    assert!(begun.elapsed() < DEADLINE);
    assert_eq!(words(&bench.submit(&["b"]).await.unwrap()), ["stored"]);
}

#[tokio::test(start_paused = true)]
async fn rejects_a_poison_request_and_stores_the_others() {
    let bench = bench(1, []);
    let (first, poisoned, last) = tokio::join!(
        bench.submit(&["a"]),
        bench.submit(&["b", "poison"]),
        bench.submit(&["c"])
    );
    assert_eq!(words(&first.unwrap()), ["stored"]);
    assert_eq!(poisoned, Err(SubmitError::Refused(vec![1])));
    assert_eq!(words(&last.unwrap()), ["stored"]);
    assert_eq!(bench.received(), 2);
}

#[tokio::test(start_paused = true)]
async fn stores_a_lenient_request_without_its_poison_events() {
    let bench = bench(1, []);
    let submission = bench.submission(&["poison-1", "a", "b", "poison-2", "c"], Handling::Lenient);
    let outcomes = bench.ingest.submit(submission).await.unwrap();
    assert_eq!(words(&outcomes), ["refused", "stored", "stored", "refused", "stored"]);
    assert_eq!(*bench.fake.group_commits.lock().unwrap(), [3]);
    let all_bad = bench.submission(&["poison-3", "poison-4"], Handling::Lenient);
    assert_eq!(
        bench.ingest.submit(all_bad).await,
        Err(SubmitError::Refused(vec![0, 1]))
    );
}

#[tokio::test(start_paused = true)]
async fn times_out_when_no_event_explains_a_rejection() {
    let bench = bench(1, [Behave::Fail(ErrorClass::Data); 1000]);
    assert_eq!(bench.submit(&["a", "b"]).await, Err(SubmitError::TooLate));
    let bench = self::bench(1, [Behave::Fail(ErrorClass::Data); 3]);
    assert_eq!(words(&bench.submit(&["a", "b"]).await.unwrap()), ["stored", "stored"]);
}

#[tokio::test(start_paused = true)]
async fn counts_accepted_events_that_are_rejected_later() {
    let bench = bench(1, []);
    let submission = bench.submission(&["a", "poison"], Handling::Lenient);
    bench.ingest.submit_and_forget(submission).unwrap();
    bench.ingest.flush().await.unwrap();
    assert_eq!(bench.received(), 1);
    assert_eq!(bench.ingest.shared.metrics.events_of(OutcomeLabel::Rejected).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn drops_claimed_requests_after_their_deadline() {
    let bench = bench(1, [Behave::FailLate(ErrorClass::Contention); 1000]);
    assert_eq!(bench.submit(&["a"]).await, Err(SubmitError::Unknown));
    bench.ingest.flush().await.unwrap();
    assert_eq!((bench.ingest.queued(), bench.ingest.bytes().taken()), (0, 0));
    assert_eq!(bench.received(), 0);
}

#[tokio::test(start_paused = true)]
async fn stores_a_request_whose_client_went_away() {
    let bench = bench(1, []);
    let mut request = Box::pin(bench.submit(&["a"]));
    assert!(futures_util::poll!(&mut request).is_pending());
    drop(request);
    assert_eq!(bench.ingest.flush().await, Ok(1));
    assert_eq!(bench.received(), 1);
}

#[tokio::test(start_paused = true)]
async fn rejects_events_beyond_the_queue_limit() {
    let bench = bench(1, [Behave::Hang]);
    let ids: Vec<String> = (0..100).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut full = Box::pin(bench.submit(&ids));
    assert!(futures_util::poll!(&mut full).is_pending());
    assert_eq!(bench.submit(&["one more"]).await, Err(SubmitError::Full));
    assert_eq!(full.await.unwrap().len(), 100);
    assert_eq!(words(&bench.submit(&["one more"]).await.unwrap()), ["stored"]);
}

#[tokio::test(start_paused = true)]
async fn removes_withdrawn_requests_from_the_queue() {
    let bench = bench(1, []);
    *bench.fake.outage.lock().unwrap() = Some(ErrorClass::NotSent);
    for round in 0..20 {
        let ids: Vec<String> = (0..50).map(|id| format!("{round}-{id}")).collect();
        let requests = ids.iter().map(|id| async { bench.submit(&[id]).await });
        let answers = futures_util::future::join_all(requests).await;
        assert!(answers.iter().all(|answer| *answer == Err(SubmitError::TooLate)));
    }
    assert_eq!(bench.ingest.queued(), 0);
    assert!(
        bench.ingest.shared.queue.waiting() <= 1,
        "{} withdrawn requests",
        bench.ingest.shared.queue.waiting()
    );
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_events_accepted_before_it() {
    let bench = bench(2, [Behave::Hang]);
    bench
        .ingest
        .submit_and_forget(bench.submission(&["a", "b"], Handling::Strict))
        .unwrap();
    assert_eq!(bench.received(), 0);
    assert_eq!(bench.ingest.flush().await, Ok(2));
    assert_eq!(bench.received(), 2);
    assert_eq!(bench.ingest.flush().await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn keeps_asynchronous_events_through_a_long_outage() {
    let bench = bench(1, []);
    *bench.fake.outage.lock().unwrap() = Some(ErrorClass::Resources);
    bench
        .ingest
        .submit_and_forget(bench.submission(&["a"], Handling::Strict))
        .unwrap();
    assert_eq!(bench.ingest.flush().await, Err(SubmitError::TooLate));
    assert_eq!(bench.ingest.last_error(), Some(ErrorClass::Resources));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    *bench.fake.outage.lock().unwrap() = None;
    assert_eq!(bench.ingest.flush().await, Ok(1));
    assert_eq!((bench.received(), bench.ingest.last_error()), (1, None));
}

#[tokio::test(start_paused = true)]
async fn commits_queued_events_after_close() {
    let mut bench = bench(3, [Behave::Fail(ErrorClass::Contention)]);
    bench
        .ingest
        .submit_and_forget(bench.submission(&["a"], Handling::Strict))
        .unwrap();
    bench.ingest.close();
    assert_eq!(bench.submit(&["b"]).await, Err(SubmitError::Stopping));
    while let Some(ended) = bench.writers.join_next().await {
        ended.unwrap();
    }
    assert_eq!(bench.received(), 1);
}

#[tokio::test(start_paused = true)]
async fn counts_events_and_group_commits_by_outcome() {
    let bench = bench(
        1,
        [
            Behave::CommitAndFail(ErrorClass::Ambiguous),
            Behave::Fail(ErrorClass::Contention),
        ],
    );
    let metrics = &bench.ingest.shared.metrics;
    // The second attempt meets contention, and the third finds the ledger row of the first.
    bench.submit(&["a", "b", "a"]).await.unwrap();
    assert_eq!(bench.submit(&["poison", "c"]).await, Err(SubmitError::Refused(vec![0])));
    let many = vec!["d"; 101];
    assert_eq!(bench.submit(&many).await, Err(SubmitError::Full));
    let too_many = bench.submission(&many, Handling::Lenient);
    assert_eq!(bench.ingest.submit_and_forget(too_many), Err(SubmitError::Full));
    *bench.fake.outage.lock().unwrap() = Some(ErrorClass::Ambiguous);
    assert_eq!(bench.submit(&["e", "f"]).await, Err(SubmitError::Unknown));
    let events = [
        (OutcomeLabel::Stored, 2),
        (OutcomeLabel::Duplicate, 1),
        (OutcomeLabel::Conflict, 0),
        (OutcomeLabel::Rejected, 1),
        (OutcomeLabel::Unavailable, 202),
        (OutcomeLabel::Unknown, 2),
    ];
    for (outcome, count) in events {
        assert_eq!(metrics.events_of(outcome).get(), count, "{outcome:?}");
    }
    assert_eq!(metrics.group_commits_of(CommitOutcome::Committed).get(), 1);
    assert!(metrics.group_commits_of(CommitOutcome::Poison).get() >= 1);
    assert!(metrics.group_commit_attempts.get() > 4);
    let errors = |class: ErrorClass| metrics.store_errors.with_label_values(&[class.as_str()]).get();
    assert_eq!((errors(ErrorClass::Contention), errors(ErrorClass::LostRace)), (1, 0));
    assert!(errors(ErrorClass::Ambiguous) > 1 && errors(ErrorClass::Data) >= 1);
}
