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
    let ids: Vec<String> = (0..60).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let requests = [&ids[..10], &ids[10..50], &ids[50..51]].map(|ids| bench.submit(ids));
    let answers = futures_util::future::join_all(requests).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(bench.submit(&ids).await.unwrap().len(), 60);
    assert_eq!(*bench.fake.group_commits.lock().unwrap(), [50, 1, 60]);
}
