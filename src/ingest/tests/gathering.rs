//! Which requests are committed together in one batch, and when a writer takes them.

use super::*;

#[tokio::test(start_paused = true)]
async fn commits_waiting_requests_together() {
    let bench = bench(1, []);
    let requests = ["a", "b", "c", "d", "e"].map(|id| bench.submit(std::slice::from_ref(Box::leak(Box::new(id)))));
    let answers = futures_util::future::join_all(requests).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(bench.fake.group_commits.lock().unwrap().iter().sum::<usize>(), 5);
    assert!(
        bench.fake.group_commits.lock().unwrap().len() <= 2,
        "at most one is committed alone, then all the others together"
    );
}

#[tokio::test(start_paused = true)]
async fn gathers_few_events_during_a_commit() {
    let bench = bench(4, [Behave::Hang]);
    let mut first = Box::pin(bench.submit(&["first"]));
    assert!(futures_util::poll!(&mut first).is_pending());
    let later = async |ids: &[&str], microseconds| {
        tokio::time::sleep(Duration::from_micros(microseconds)).await;
        bench.submit(ids).await
    };
    let few = [later(&["a"], 1000), later(&["b"], 1500), later(&["c"], 2000)];
    let answers = futures_util::future::join_all(few).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(*bench.fake.group_commits.lock().unwrap(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_commit_delays_no_request_for_long() {
    let bench = bench(2, [Behave::Hang]);
    let mut first = Box::pin(bench.submit(&["first"]));
    assert!(futures_util::poll!(&mut first).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    assert_eq!(words(&bench.submit(&["few"]).await.unwrap()), ["stored"]);
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_millis(2) && waited < Duration::from_millis(10),
        "{waited:?}"
    );
    assert!(futures_util::poll!(&mut first).is_pending());
}

#[tokio::test(start_paused = true)]
async fn rest_of_a_full_batch_is_not_delayed() {
    let bench = bench(2, [Behave::Hang]);
    let ids: Vec<String> = (0..51).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let mut hangs = Box::pin(bench.submit(&ids[..48]));
    assert!(futures_util::poll!(&mut hangs).is_pending());
    assert!(bench.submit(&ids[48..]).await.is_ok());
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
    assert!(futures_util::poll!(&mut hangs).is_pending());
}

#[tokio::test(start_paused = true)]
async fn close_ends_all_idle_writers() {
    let mut bench = bench(4, []);
    for _ in 0..20 {
        let requests = [["a"], ["b"], ["c"], ["d"], ["e"]];
        futures_util::future::join_all(requests.iter().map(|ids| bench.submit(ids))).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    bench.ingest.close();
    let ended = async { while bench.writers.join_next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(1), ended).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn takes_many_events_at_once() {
    let bench = bench(2, [Behave::Hang]);
    let mut first = Box::pin(bench.submit(&["first"]));
    assert!(futures_util::poll!(&mut first).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    let much = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    assert!(bench.submit(&much).await.is_ok());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(futures_util::poll!(&mut first).is_pending());
}

#[tokio::test(start_paused = true)]
async fn takes_large_events_at_once() {
    let bench = bench(2, [Behave::Hang]);
    let mut first = Box::pin(bench.submit(&["first"]));
    assert!(futures_util::poll!(&mut first).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut large = bench.submission(&["large"], Handling::Strict);
    large.reservation.grow(500_000).unwrap();
    let begun = Instant::now();
    assert!(bench.ingest.submit(large).await.is_ok());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(futures_util::poll!(&mut first).is_pending());
}

#[tokio::test(start_paused = true)]
async fn bounds_a_batch_and_splits_no_request() {
    let bench = bench(1, []);
    let ids = ids(61);
    let requests = [&ids[..11], &ids[11..50], &ids[50..61]].map(|ids| bench.submit(ids));
    let answers = futures_util::future::join_all(requests).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(bench.submit(&ids).await.unwrap().len(), 61);
    assert_eq!(*bench.fake.group_commits.lock().unwrap(), [50, 11, 61]);
}

#[tokio::test(start_paused = true)]
async fn small_requests_and_large_ones_take_turns() {
    let bench = bench(1, []);
    let ids = ids(66);
    let requests = [&ids[..30], &ids[30..60], &ids[60..64], &ids[64..65], &ids[65..66]].map(|ids| bench.submit(ids));
    let answers = futures_util::future::join_all(requests).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(*bench.fake.group_commits.lock().unwrap(), [6, 30, 30]);
}

#[tokio::test(start_paused = true)]
async fn one_writer_is_kept_while_small_requests_come() {
    let bench = bench(2, []);
    let ids = ids(60);
    assert!(bench.submit(&["first"]).await.is_ok());
    bench.fake.script.lock().unwrap().push_back(Behave::Hang);
    let mut hangs = Box::pin(bench.submit(&ids[..20]));
    assert!(futures_util::poll!(&mut hangs).is_pending());
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut waits = Box::pin(bench.submit(&ids[20..40]));
    assert!(futures_util::poll!(&mut waits).is_pending());
    tokio::time::sleep(Duration::from_millis(10)).await;
    let begun = Instant::now();
    assert!(bench.submit(&["small"]).await.is_ok());
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(futures_util::poll!(&mut waits).is_pending());
    // Once none has come for a while, the writer takes large ones, too.
    assert!(waits.await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(futures_util::poll!(&mut hangs).is_pending());
}

#[tokio::test(start_paused = true)]
async fn large_requests_leave_room_to_small_ones() {
    let bench = bench(1, []);
    *bench.fake.outage.lock().unwrap() = Some(ErrorClass::NotSent);
    let ids = ids(89);
    let mut large = Box::pin(bench.submit(&ids[..77]));
    assert!(futures_util::poll!(&mut large).is_pending());
    assert_eq!(bench.submit(&ids[77..89]).await, Err(SubmitError::Full));
    let mut small = Box::pin(bench.submit(&ids[77..87]));
    assert!(futures_util::poll!(&mut small).is_pending());
    assert_eq!(bench.ingest.queued(), 87);
}

#[tokio::test(start_paused = true)]
async fn clients_take_turns() {
    let bench = bench(1, []);
    let ids = ids(80);
    let submit = |client: u8, ids: &[&str]| {
        let mut submission = bench.submission(ids, Handling::Strict);
        submission.client = Some([10, 0, 0, client].into());
        bench.ingest.submit(submission)
    };
    // Eight requests of one client, and then one of another: it is in the first batch of 50 events all the same.
    let greedy = ids[..72].chunks(9).map(|ids| submit(1, ids));
    let requests: Vec<_> = greedy.chain([submit(2, &ids[72..])]).collect();
    let answers = futures_util::future::join_all(requests).await;
    let batch = |answer: &Result<Vec<EventOutcome>, SubmitError>| match answer.as_deref() {
        Ok([EventOutcome::Stored(position), ..]) => position.cursor.batch(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        answers.iter().map(batch).collect::<Vec<_>>(),
        [1, 1, 1, 1, 2, 2, 2, 2, 1]
    );
}

/// So many ids of events.
fn ids(count: usize) -> Vec<&'static str> {
    (0..count).map(|id| &*id.to_string().leak()).collect()
}
