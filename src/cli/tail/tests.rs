//! Both ways to follow, against a service and a Redis that are made of a socket and a script.

mod channel;

use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, stream::unfold};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, duplex},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::*;

thread_local! {
    /// What this test, which has one thread, reported.
    static REPORTS: RefCell<Vec<String>> = RefCell::default();
}

fn report(line: &str) {
    REPORTS.with_borrow_mut(|reports| reports.push(line.to_owned()));
}

fn reports() -> Vec<String> {
    // A port differs from run to run.
    let word = |line: &String| {
        let shown = if line.contains("is unavailable") {
            "away"
        } else {
            "back"
        };
        shown.to_owned()
    };
    REPORTS.with_borrow(|reports| reports.iter().map(word).collect())
}

/// In the tests' own time, in which nothing takes long: what would never end fails.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(600), future).await.expect("an end in time")
}

fn cursor(number: u64) -> String {
    format!("{number:024}")
}

fn event(number: u64) -> String {
    let topic = if number.is_multiple_of(2) { "even" } else { "odd" };
    format!(
        r#"{{"topic":"{topic}","event_id":"{number}","timestamp":"2025-10-24T10:30:00Z","source":"{}","payload":{{"n":{number}}},"received_at":"2025-10-24T10:30:00Z","cursor":"{}"}}"#,
        if number.is_multiple_of(3) { "three" } else { "other" },
        cursor(number)
    )
}

fn block(number: u64) -> String {
    format!("id: {}\ndata: {}\n\n", cursor(number), event(number))
}

fn page(events: impl IntoIterator<Item = u64>, next: u64) -> Answer {
    let events: Vec<String> = events.into_iter().map(event).collect();
    let body = format!(
        r#"{{"status":"success","topic":null,"count":{},"events":[{}],"next":"{}"}}"#,
        events.len(),
        events.join(","),
        cursor(next)
    );
    Answer::Whole(200, body)
}

/// A request: its target, and its `Last-Event-ID`.
type Asked = (String, Option<String>);

#[derive(Debug, Clone)]
enum Answer {
    /// A status, and a body, with `Retry-After: 7`.
    Whole(u16, String),
    /// A stream of this, each after a pause; then it is cut if so, and else silent.
    Stream(Vec<(Duration, String)>, bool),
}

impl Answer {
    fn cut_after(blocks: impl IntoIterator<Item = u64>) -> Self {
        Self::Stream(
            blocks
                .into_iter()
                .map(|number| (Duration::ZERO, block(number)))
                .collect(),
            true,
        )
    }
}

struct Fake {
    client: Client,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    async fn start(answer: impl FnMut(&str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (asked, answer) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(Mutex::new(answer)));
        let mut tasks = JoinSet::new();
        let log = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                connections.spawn(async move {
                    let mut stream = BufReader::new(stream);
                    if let Some(asked) = read_head(&mut stream).await {
                        let answer = (answer.lock().unwrap())(&asked.0);
                        log.lock().unwrap().push(asked);
                        // A client that has gone is no failure.
                        drop(write(stream.into_inner(), answer).await);
                    }
                });
            }
        });
        Self {
            client: Client::new(target, client::CALL_TIMEOUT).unwrap(),
            asked,
            _tasks: tasks,
        }
    }

    /// Answers in this order.
    async fn answering(answers: Vec<Answer>) -> Self {
        let mut answers = answers.into_iter();
        Self::start(move |_| answers.next().unwrap_or(Answer::Stream(Vec::new(), false))).await
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn wanted(&self, after: Option<&str>) -> Wanted {
        Wanted {
            client: self.client.clone(),
            topic: None,
            after: after.map(ToOwned::to_owned),
            report,
        }
    }

    /// Follows the stream until so many events are printed, and gives them back.
    async fn follow(&self, after: Option<&str>, limit: u64) -> Vec<String> {
        let mut printed = Vec::new();
        let mut output = Output::new(&mut printed, NonZeroU64::new(limit));
        let end = soon(stream::follow(self.wanted(after), &mut output)).await;
        assert!(matches!(end, Err(End::Done)), "{end:?}");
        String::from_utf8(printed)
            .unwrap()
            .lines()
            .map(ToOwned::to_owned)
            .collect()
    }
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut lines = stream.lines();
    let first = lines.next_line().await.ok()??;
    let mut last_event_id = None;
    loop {
        let line = lines.next_line().await.ok()??;
        if line.is_empty() {
            return Some((first.split(' ').nth(1)?.to_owned(), last_event_id));
        }
        if let Some(id) = line.strip_prefix("last-event-id: ") {
            last_event_id = Some(id.to_owned());
        }
    }
}

async fn write(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    match answer {
        Answer::Whole(status, body) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} x\r\nretry-after: 7\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            );
            stream.write_all((head + &body).as_bytes()).await
        }
        Answer::Stream(blocks, is_cut) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            for (pause, block) in blocks {
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                stream.write_all(block.as_bytes()).await?;
            }
            if !is_cut {
                // Until the client goes.
                stream.read_u8().await?;
            }
            Ok(())
        }
    }
}

fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(event).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_cut_resumes_behind_its_last_event() {
    let fake = Fake::answering(vec![
        Answer::cut_after([1, 2]),
        Answer::cut_after([]),
        Answer::cut_after([1, 2, 3]),
        Answer::cut_after([4]),
    ])
    .await;
    assert_eq!(fake.follow(Some(""), 4).await, events(1..=4));
    let target = "/events/stream?after=".to_owned();
    let expected = [None, Some(2), Some(2), Some(3)].map(|id| (target.clone(), id.map(cursor)));
    assert_eq!(fake.asked(), expected);
}

#[tokio::test(start_paused = true)]
async fn without_a_position_it_asks_for_one_first() {
    let fake = Fake::answering(vec![
        Answer::Whole(503, r#"{"detail":"starting"}"#.to_owned()),
        page([9], 7),
        Answer::cut_after([]),
        Answer::cut_after([8]),
    ])
    .await;
    assert_eq!(fake.follow(None, 1).await, events([8]));
    let stream = format!("/events/stream?after={}", cursor(7));
    let first = "/events?order=desc&limit=1".to_owned();
    let expected = [first.clone(), first, stream.clone(), stream].map(|target| (target, None));
    assert_eq!(fake.asked(), expected);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_out_and_an_outage_reported_once() {
    let busy = || Answer::Whole(503, r#"{"detail":"busy"}"#.to_owned());
    let fake = Fake::answering(vec![busy(), busy(), Answer::cut_after([1])]).await;
    let begin = Instant::now();
    assert_eq!(fake.follow(Some(""), 1).await, events([1]));
    let waited = begin.elapsed().as_secs();
    assert!((14..20).contains(&waited), "{waited}");
    assert_eq!(reports(), ["away", "back"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_ends_it_with_its_reason() {
    let refusal = r#"{"detail":[{"type":"cursor_invalid","loc":["query","after"],"msg":"Input should be a cursor"}]}"#;
    let fake = Fake::start(|_| Answer::Whole(422, refusal.to_owned())).await;
    let mut output = Output::new(Vec::new(), None);
    let Err(End::Failed(error)) = soon(stream::follow(fake.wanted(Some("x")), &mut output)).await else {
        panic!("it should fail");
    };
    let words = "rejected with status 422: query.after: Input should be a cursor";
    assert_eq!(error.to_string(), words);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_stream_is_an_error() {
    let fake = Fake::start(|_| Answer::Whole(200, "<html>".to_owned())).await;
    let mut output = Output::new(Vec::new(), None);
    let end = soon(stream::follow(fake.wanted(Some("")), &mut output)).await;
    assert!(matches!(end, Err(End::Failed(_))), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_opened_again() {
    let pause = Duration::from_secs(40);
    let alive = vec![
        (pause, ": alive\n\n".to_owned()),
        (pause, ": alive\n\n".to_owned()),
        (pause, block(1)),
    ];
    let fake = Fake::answering(vec![Answer::Stream(alive, false), Answer::cut_after([2])]).await;
    let begin = Instant::now();
    assert_eq!(fake.follow(Some(""), 2).await, events([1, 2]));
    let waited = begin.elapsed().as_secs();
    assert!((120 + 45..120 + 47).contains(&waited), "{waited}");
    assert_eq!(fake.asked().len(), 2);
}
