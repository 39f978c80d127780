//! A stand-in for an OpenTelemetry collector: it accepts spans over OTLP/HTTP and keeps them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::eventually::eventually;
use crate::service::Settings;

/// How a collector answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectorMode {
    /// It accepts spans.
    Accepts,
    /// It answers 500.
    Rejects,
    /// It accepts connections and requests, and never answers.
    Hangs,
}

/// A collector on a port of its own. It stops when this is dropped.
#[derive(Debug)]
pub struct Collector {
    url: String,
    kept: Arc<Mutex<Kept>>,
    _task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Kept {
    heads: Vec<String>,
    spans: Vec<Span>,
}

/// A span as it was received.
#[derive(Debug, Clone)]
pub struct Span {
    /// The service that sent it.
    pub service: String,
    /// The trace, in hexadecimal digits.
    pub trace_id: String,
    /// Its id, in hexadecimal digits.
    pub id: String,
    /// The id of its parent, empty without one.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// When it began, in nanoseconds since 1970.
    pub begun: u64,
    /// When it ended.
    pub ended: u64,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Whether its status is an error.
    pub has_failed: bool,
}

impl Collector {
    /// Starts a collector.
    pub async fn start(mode: CollectorMode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the port that is bound");
        let kept = Arc::new(Mutex::new(Kept::default()));
        let keeping = Arc::clone(&kept);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&keeping);
                connections.spawn(async move {
                    // A broken connection is no error of the test.
                    drop(serve(stream, mode, &kept).await);
                });
            }
        });
        Collector {
            url: format!("http://{address}"),
            kept,
            _task: task,
        }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.kept).heads.clone()
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.kept).spans.clone()
    }

    /// The spans of a trace so far.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace_id == trace_id);
        spans
    }

    /// Waits until this many spans of a trace were received, and returns all of them by name.
    pub async fn wait_for(&self, trace_id: &str, count: usize, deadline: Duration) -> BTreeMap<String, Span> {
        let spans = eventually(deadline, async || {
            let spans = self.trace(trace_id);
            ensure!(spans.len() >= count, "{} spans of {count}: {spans:?}", spans.len());
            Ok(spans)
        })
        .await;
        spans.into_iter().map(|span| (span.name.clone(), span)).collect()
    }
}

impl Settings {
    /// The same with this collector, and a short delay before spans are sent.
    #[must_use]
    pub fn with_collector(self, collector: &Collector) -> Self {
        self.with("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
            .with("OTEL_BSP_SCHEDULE_DELAY", "50")
    }
}

/// Answers the requests of one connection.
async fn serve(stream: TcpStream, mode: CollectorMode, kept: &Mutex<Kept>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(stream.read_line(&mut head).await? > 0, "the connection has ended");
        }
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .context("a request without a length")?
            .1;
        let mut body = vec![0; length.trim().parse()?];
        stream.read_exact(&mut body).await?;
        lock(kept).heads.push(head);
        let status = match mode {
            CollectorMode::Accepts => {
                let spans = read(&body)?;
                lock(kept).spans.extend(spans);
                "200 OK"
            }
            CollectorMode::Rejects => "500 Internal Server Error",
            CollectorMode::Hangs => std::future::pending().await,
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// The spans of a request's body.
fn read(body: &[u8]) -> anyhow::Result<Vec<Span>> {
    let mut spans = Vec::new();
    for of_resource in ExportTraceServiceRequest::decode(body)?.resource_spans {
        let resource = attributes(of_resource.resource.context("spans without a resource")?.attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                service: resource.get("service.name").cloned().unwrap_or_default(),
                trace_id: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                begun: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                attributes: attributes(span.attributes),
                has_failed: span.status.is_some_and(|status| status.code() == StatusCode::Error),
            });
        }
    }
    Ok(spans)
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs
        .into_iter()
        .map(|pair| (pair.key, text(pair.value.and_then(|value| value.value))))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
