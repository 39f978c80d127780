//! Whole runs against a small model of the service that fails on command.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

use super::{tally::Tally, *};
use crate::api::publish::example;

/// What becomes of one attempt.
#[derive(Debug, Clone, Copy)]
enum ValidationError {
    /// It is not stored, and the connection is closed.
    LostBeforeStoring,
    /// It is stored, and the connection is closed.
    LostAfterStoring,
    /// It is stored, and never answered.
    StoredAndSilent,
    /// It is not stored, and answered with this status.
    Status(u16),
    /// It is stored, and answered with this status.
    StoredAndStatus(u16),
    /// The answer calls one event more new than there are.
    OneUniqueTooMany,
    /// One event less is stored than there are.
    OneEventForgotten,
}

/// What the model has stored and counted.
#[derive(Debug, Default)]
struct World {
    faults: HashMap<u64, ValidationError>,
    attempts: u64,
    identities: HashSet<String>,
    received: u64,
}

impl World {
    /// Stores the events of a body, and returns how many they are and how many of them are new.
    fn store(&mut self, events: &[Value]) -> (u64, u64) {
        let new = events
            .iter()
            .filter(|event| {
                self.identities
                    .insert(format!("{} {}", event["topic"], event["event_id"]))
            })
            .count();
        self.received += events.len() as u64;
        (events.len() as u64, new as u64)
    }

    /// The status and the body that answer an attempt; `None` to close the connection.
    fn answer(&mut self, body: &[u8]) -> Option<(u16, Value)> {
        self.attempts += 1;
        let fault = self.faults.get(&self.attempts).copied();
        let mut events = parse(body);
        match fault {
            Some(ValidationError::LostBeforeStoring) => return None,
            Some(ValidationError::Status(status)) => return Some((status, json!({ "detail": "no luck" }))),
            Some(ValidationError::OneEventForgotten) => drop(events.remove(0)),
            _ => {}
        }
        let (mut received, mut unique) = self.store(&events);
        match fault {
            Some(ValidationError::LostAfterStoring) => return None,
            Some(ValidationError::StoredAndStatus(status)) => return Some((status, json!({ "detail": "no luck" }))),
            Some(ValidationError::OneEventForgotten) => received += 1,
            Some(ValidationError::OneUniqueTooMany) => unique += 1,
            _ => {}
        }
        let duplicates = received - unique;
        let body = json!(example(received, unique, duplicates));
        Some((if unique > 0 { 201 } else { 200 }, body))
    }
}

fn parse(body: &[u8]) -> Vec<Value> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(events)) => events,
        Ok(event) => vec![event],
        Err(_) => serde_json::Deserializer::from_slice(body)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap(),
    }
}

struct Fake {
    target: Target,
    world: Arc<Mutex<World>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    async fn start(faults: impl IntoIterator<Item = (u64, ValidationError)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let world = Arc::new(Mutex::new(World {
            faults: faults.into_iter().collect(),
            ..World::default()
        }));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&world)));
        Self {
            target,
            world,
            _tasks: tasks,
        }
    }

    /// How many events the model counted, and how many it stored.
    fn counts(&self) -> (u64, u64) {
        let world = self.world.lock().unwrap();
        (world.received, world.identities.len() as u64)
    }
}

async fn serve(listener: TcpListener, world: Arc<Mutex<World>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let world = Arc::clone(&world);
        let answer = service_fn(move |request| answer(Arc::clone(&world), request));
        connections.spawn(async move {
            // A connection that is closed on purpose ends with an error.
            drop(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await,
            );
        });
    }
}

async fn answer(world: Arc<Mutex<World>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    assert_eq!(request.uri().path(), "/publish");
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let (answer, silent) = {
        let mut world = world.lock().unwrap();
        let answer = world.answer(&body);
        (
            answer,
            matches!(
                world.faults.get(&world.attempts),
                Some(ValidationError::StoredAndSilent)
            ),
        )
    };
    if silent {
        std::future::pending::<()>().await;
    }
    let (status, body) = answer.ok_or(std::io::ErrorKind::ConnectionAborted)?;
    let response = Response::builder().status(status).header("retry-after", "0");
    Ok(response.body(Full::from(body.to_string())).unwrap())
}

const EVENTS: u64 = 400;
const BATCH: u64 = 20;

fn a_plan(seed: u64) -> Plan {
    Plan {
        events: EVENTS,
        duplicates: 120,
        topics: NonZeroU64::new(4).unwrap(),
        seed,
    }
}

fn a_run(target: &Target, patience: Option<Duration>) -> Run {
    let client = Client::new(target.clone(), Duration::from_secs(5)).unwrap();
    Run::new(client, Some(EVENTS), patience)
}

async fn publish(fake: &Fake, seed: u64, concurrency: usize) -> (anyhow::Result<()>, Tally) {
    let run = a_run(&fake.target, Some(Duration::from_secs(20)));
    let requests = paced(Source::Plan(Generator::new(a_plan(seed), BATCH)), None);
    let outcome = run.drive(requests, concurrency).await;
    (outcome, run.end())
}

/// Publishes one request after the other, and demands that everything adds up.
async fn publish_in_order(faults: &[(u64, ValidationError)]) -> (Fake, Tally) {
    let fake = Fake::start(faults.iter().copied()).await;
    let (outcome, tally) = publish(&fake, 1, 1).await;
    outcome.unwrap();
    tally.verify(&a_plan(1)).unwrap();
    assert_eq!(fake.counts().1, 280);
    (fake, tally)
}

#[tokio::test]
async fn everything_is_published_once_when_nothing_fails() {
    let (fake, tally) = publish_in_order(&[]).await;
    assert_eq!((fake.counts(), tally.resent()), ((EVENTS, 280), 0));
}

#[tokio::test]
async fn what_was_stored_and_resent_is_counted_and_what_may_yet_come_is_allowed_for() {
    let faults = [
        (2, ValidationError::LostAfterStoring),
        (5, ValidationError::StoredAndStatus(504)),
        (9, ValidationError::LostBeforeStoring),
        (12, ValidationError::Status(502)),
    ];
    let (fake, tally) = publish_in_order(&faults).await;
    assert_eq!(tally.resent(), 4 * BATCH);
    assert_eq!(
        tally.resent_after_stored(),
        span::Span {
            low: 2 * BATCH,
            high: 4 * BATCH
        }
    );
    assert_eq!(fake.counts().0, EVENTS + 2 * BATCH);
}

#[tokio::test]
async fn a_request_that_is_never_answered_is_sent_again() {
    let (fake, tally) = publish_in_order(&[(3, ValidationError::StoredAndSilent)]).await;
    assert_eq!((tally.resent(), fake.counts().0), (BATCH, EVENTS + BATCH));
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_waited_for_and_nothing_counts_as_resent() {
    let (fake, tally) = publish_in_order(&[
        (1, ValidationError::Status(503)),
        (2, ValidationError::Status(503)),
        (8, ValidationError::Status(429)),
    ])
    .await;
    assert_eq!((tally.resent(), fake.counts().0), (0, EVENTS));
}

#[tokio::test]
async fn with_any_faults_and_many_requests_at_a_time_the_bounds_hold() {
    for seed in 0..4 {
        let mut random = plan::Random::new(seed);
        let faults = (1..40).filter_map(|attempt| {
            let fault = match random.below(NonZeroU64::new(6)?) {
                0 => ValidationError::LostBeforeStoring,
                1 => ValidationError::LostAfterStoring,
                2 => ValidationError::StoredAndStatus(500),
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
        let (again, bounds) = (received - EVENTS, tally.resent_after_stored());
        assert!((bounds.low..=bounds.high).contains(&again), "{again} {bounds:?}");
        assert!(bounds.high <= tally.resent());
    }
}

#[tokio::test]
async fn a_service_that_counts_wrongly_is_found_out() {
    for (attempt, fault) in [
        (4, ValidationError::OneUniqueTooMany),
        (1, ValidationError::OneEventForgotten),
    ] {
        let fake = Fake::start([(attempt, fault)]).await;
        let (outcome, tally) = publish(&fake, 1, 1).await;
        outcome.unwrap();
        assert!(tally.verify(&a_plan(1)).is_err(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_refused_request_ends_the_run_and_says_why() {
    let fake = Fake::start([(3, ValidationError::Status(422))]).await;
    let (outcome, tally) = publish(&fake, 1, 1).await;
    assert_eq!(
        format!("{:#}", outcome.unwrap_err()),
        "events 41 to 60 are not published: rejected with status 422: no luck"
    );
    assert_eq!(tally.events(), 40);
}

#[tokio::test]
async fn patience_ends() {
    let fake = Fake::start([(1, ValidationError::Status(503))]).await;
    let run = a_run(&fake.target, Some(Duration::ZERO));
    let requests = paced(Source::Plan(Generator::new(a_plan(1), BATCH)), None);
    let error = run.drive(requests, 1).await.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "events 1 to 20 are not published: status 503: no luck"
    );
}

#[tokio::test]
async fn lines_of_a_file_are_published() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for number in [1, 2, 2, 3] {
        writeln!(file, "{}", json!({ "topic": "t", "event_id": number.to_string() })).unwrap();
    }
    let fake = Fake::start([]).await;
    let run = a_run(&fake.target, None);
    let lines = Lines::open(file.path().to_str().unwrap(), 3).await.unwrap();
    run.drive(paced(Source::File(lines), None), 2).await.unwrap();
    assert_eq!((run.end().events(), fake.counts()), (4, (4, 3)));
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_spaces_the_requests() {
    let plan = Plan {
        events: 100,
        duplicates: 0,
        ..a_plan(1)
    };
    let requests = paced(Source::Plan(Generator::new(plan, 10)), NonZeroU64::new(20));
    let begin = Instant::now();
    assert_eq!(requests.count().await, 10);
    assert_eq!(begin.elapsed().as_millis(), 4_500);
}
