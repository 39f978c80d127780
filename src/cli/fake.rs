//! A small model of the service that fails on command, for tests.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::client::target::Target;

/// What becomes of one attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
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
    faults: HashMap<u64, Fault>,
    attempts: u64,
    identities: HashSet<String>,
    received: u64,
}

impl World {
    /// Stores the events of a body, and returns how many they are, how many of them are new, and their results.
    fn store(&mut self, events: &[Value]) -> (u64, u64, Vec<Value>) {
        let mut new = 0;
        let results = events.iter().enumerate().map(|(index, event)| {
            let is_new = self
                .identities
                .insert(format!("{} {}", event["topic"], event["event_id"]));
            new += u64::from(is_new);
            json!({
                "index": index, "topic": event["topic"], "event_id": event["event_id"],
                "status": if is_new { "stored" } else { "duplicate" }, "cursor": "000000000000000100000001", "received_at": "2025-10-24T10:30:00Z",
            })
        });
        let results = results.collect();
        self.received += events.len() as u64;
        (events.len() as u64, new, results)
    }

    /// The status and the body that answer an attempt; `None` to close the connection.
    fn answer(&mut self, body: &[u8]) -> Option<(u16, Value)> {
        self.attempts += 1;
        let fault = self.faults.get(&self.attempts).copied();
        let mut events = parse(body);
        match fault {
            Some(Fault::LostBeforeStoring) => return None,
            Some(Fault::Status(status)) => return Some((status, json!({ "detail": "no luck" }))),
            Some(Fault::OneEventForgotten) => drop(events.remove(0)),
            _ => {}
        }
        let (mut received, mut unique, results) = self.store(&events);
        match fault {
            Some(Fault::LostAfterStoring) => return None,
            Some(Fault::StoredAndStatus(status)) => return Some((status, json!({ "detail": "no luck" }))),
            Some(Fault::OneEventForgotten) => received += 1,
            Some(Fault::OneUniqueTooMany) => unique += 1,
            _ => {}
        }
        let duplicates = received - unique;
        let body = json!({
            "status": "success", "message": "",
            "received": received, "unique_processed": unique, "duplicate_dropped": duplicates,
            "details": {"accepted": unique, "rejected": 0, "duplicates_immediate": duplicates},
            "results": results,
        });
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

pub(crate) struct Fake {
    pub(crate) target: Target,
    world: Arc<Mutex<World>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub(crate) async fn start(faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
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
    pub(crate) fn counts(&self) -> (u64, u64) {
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
            matches!(world.faults.get(&world.attempts), Some(Fault::StoredAndSilent)),
        )
    };
    if silent {
        std::future::pending::<()>().await;
    }
    let (status, body) = answer.ok_or(std::io::ErrorKind::ConnectionAborted)?;
    let response = Response::builder().status(status).header("retry-after", "0");
    Ok(response.body(Full::from(body.to_string())).unwrap())
}
