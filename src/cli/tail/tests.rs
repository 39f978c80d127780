//! Both ways to follow, against a service and a Redis that are made of a socket and a script.

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

use super::{channel::News, *};
use crate::config::RedisUrl;

thread_local! {
    /// What the follower of this test, which has one thread, told.
    static TOLD: RefCell<Vec<String>> = RefCell::default();
}

fn tell(line: &str) {
    TOLD.with_borrow_mut(|told| told.push(line.to_owned()));
}

fn told() -> Vec<String> {
    // A port differs from run to run.
    let word = |line: &String| {
        let shown = if line.contains("is away") { "away" } else { "back" };
        shown.to_owned()
    };
    TOLD.with_borrow(|told| told.iter().map(word).collect())
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
        r#"{{"topic":"{topic}","payload":{{"n":{number}}},"cursor":"{}"}}"#,
        cursor(number)
    )
}

fn block(number: u64) -> String {
    format!("id: {}\nevent: event\ndata: {}\n\n", cursor(number), event(number))
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
            tell,
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
async fn a_stream_that_was_cut_is_resumed_behind_the_last_event_and_none_is_printed_twice() {
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
async fn without_a_position_it_gets_one_first_so_that_nothing_is_lost_before_the_first_event() {
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
async fn retry_after_is_waited_out_and_an_outage_is_told_once() {
    let busy = || Answer::Whole(503, r#"{"detail":"busy"}"#.to_owned());
    let fake = Fake::answering(vec![busy(), busy(), Answer::cut_after([1])]).await;
    let begin = Instant::now();
    assert_eq!(fake.follow(Some(""), 1).await, events([1]));
    let waited = begin.elapsed().as_secs();
    assert!((14..20).contains(&waited), "{waited}");
    assert_eq!(told(), ["away", "back"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_service_refuses_ends_it_with_the_services_words() {
    let refusal = r#"{"detail":[{"type":"cursor_invalid","loc":["query","after"],"msg":"Input should be a cursor"}]}"#;
    let fake = Fake::start(|_| Answer::Whole(422, refusal.to_owned())).await;
    let mut output = Output::new(Vec::new(), None);
    let Err(End::Failed(error)) = soon(stream::follow(fake.wanted(Some("x")), &mut output)).await else {
        panic!("it should fail");
    };
    let words = "refused with status 422: query.after: Input should be a cursor";
    assert_eq!(error.to_string(), words);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_stream_of_events_is_found_out() {
    let fake = Fake::start(|_| Answer::Whole(200, "<html>".to_owned())).await;
    let mut output = Output::new(Vec::new(), None);
    let end = soon(stream::follow(fake.wanted(Some("")), &mut output)).await;
    assert!(matches!(end, Err(End::Failed(_))), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_for_45_seconds_is_opened_again_and_a_comment_is_a_sign_of_life() {
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

/// The log of a service: what is committed, and how much of it is settled.
#[derive(Debug, Default)]
struct Log {
    events: Vec<u64>,
    settled: u64,
    /// How many requests are answered before it is down, if it is.
    answers_left: Option<u32>,
}

impl Log {
    fn settled(last: u64) -> Self {
        Self {
            events: (1..=last).collect(),
            settled: last,
            answers_left: None,
        }
    }

    fn answer(&mut self, target: &str) -> Answer {
        if let Some(left) = &mut self.answers_left {
            if *left == 0 {
                return Answer::Whole(503, String::new());
            }
            *left -= 1;
        }
        let Some((_, query)) = target.split_once("after=") else {
            return page(self.events.iter().max().copied(), self.settled);
        };
        let after = query.split('&').next().unwrap();
        if !after.is_empty() && after.parse::<u64>().is_err() {
            return Answer::Whole(422, r#"{"detail":"no cursor"}"#.to_owned());
        }
        let after = after.parse().unwrap_or(0);
        // Small pages, so that a lap has several.
        let mut events: Vec<u64> = self.events.clone();
        events
            .retain(|event| (after + 1..=self.settled).contains(event) && (!query.contains("even") || event % 2 == 0));
        events.sort_unstable();
        let is_last = events.len() <= 100;
        events.truncate(100);
        let next = if is_last { self.settled.max(after) } else { events[99] };
        page(events, next)
    }
}

/// Follows a channel and a log.
struct World {
    fake: Fake,
    log: Arc<Mutex<Log>>,
}

/// What a test of a world does meanwhile.
struct Hand {
    log: Arc<Mutex<Log>>,
    news: mpsc::Sender<News>,
    lines: Lines<BufReader<DuplexStream>>,
}

impl Hand {
    async fn publish(&self, number: u64) {
        self.news.send(News::Message(event(number))).await.unwrap();
    }

    async fn line(&mut self) -> String {
        soon(self.lines.next_line()).await.unwrap().unwrap()
    }

    async fn expect(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            assert_eq!(self.line().await, event(number));
        }
    }
}

impl World {
    async fn with(events: impl IntoIterator<Item = u64>, settled: u64) -> Self {
        let log = Arc::new(Mutex::new(Log {
            events: events.into_iter().collect(),
            settled,
            answers_left: None,
        }));
        let answering = Arc::clone(&log);
        let fake = Fake::start(move |target| answering.lock().unwrap().answer(target)).await;
        Self { fake, log }
    }

    async fn run(self, wanted: Wanted, script: impl AsyncFnOnce(&mut Hand)) -> Result<(), End> {
        let (news, receiver) = mpsc::channel(10_000);
        let heard = unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        let (out, reader) = duplex(1 << 20);
        let mut hand = Hand {
            log: self.log,
            news,
            lines: BufReader::new(reader).lines(),
        };
        let mut output = Output::new(out, None);
        select! {
            end = merge::follow(wanted, heard.boxed(), &mut output) => end.map(|never| match never {}),
            () = script(&mut hand) => Ok(()),
        }
    }

    async fn follow(self, after: Option<&str>, script: impl AsyncFnOnce(&mut Hand)) {
        let wanted = self.fake.wanted(after);
        self.run(wanted, script).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_channel_goes_on_where_the_walk_ends_and_no_event_is_printed_twice() {
    let world = World::with(1..=250, 250).await;
    world
        .follow(Some(""), async |hand| {
            hand.news.send(News::Here).await.unwrap();
            for number in [249, 250, 251, 252] {
                hand.publish(number).await;
            }
            hand.expect(1..=252).await;
            // Published again after an outage of the service's.
            for number in [252, 3, 254, 253, 254] {
                hand.publish(number).await;
            }
            hand.expect([254, 253]).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_position_it_begins_with_what_comes_next_and_keeps_to_its_topic() {
    let world = World::with(1..=9, 9).await;
    let wanted = Wanted {
        topic: Some("even".to_owned()),
        ..world.fake.wanted(None)
    };
    let script = async |hand: &mut Hand| {
        hand.news.send(News::Here).await.unwrap();
        for number in [8, 10, 11, 12] {
            hand.publish(number).await;
        }
        hand.news.send(News::Message("PING".to_owned())).await.unwrap();
        hand.expect([10, 12]).await;
    };
    world.run(wanted, script).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_is_subscribed_before_there_is_a_position_for_what_is_published_then_must_be_printed() {
    let world = World::with(1..=9, 9).await;
    world
        .follow(None, async |hand| {
            hand.log.lock().unwrap().answers_left = Some(0);
            hand.news.send(News::Here).await.unwrap();
            sleep(Duration::from_secs(10)).await;
            assert_eq!(hand.news.capacity(), hand.news.max_capacity() - 1);
            hand.log.lock().unwrap().answers_left = None;
            hand.publish(10).await;
            hand.expect([10]).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_published_before_the_channel_came_and_is_settled_only_later_is_printed() {
    // 6 to 8 are committed and published, and something older still runs.
    let world = World::with(1..=8, 5).await;
    world
        .follow(Some(""), async |hand| {
            hand.news.send(News::Here).await.unwrap();
            hand.publish(9).await;
            hand.expect((1..=5).chain([9])).await;
            {
                let mut log = hand.log.lock().unwrap();
                log.events.push(9);
                log.settled = 9;
            }
            hand.expect(6..=8).await;
            hand.publish(10).await;
            hand.expect([10]).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn while_redis_is_away_the_walk_goes_on_and_when_it_is_back_nothing_was_missed() {
    let world = World::with(1..=3, 3).await;
    world
        .follow(Some(""), async |hand| {
            hand.news.send(News::Here).await.unwrap();
            hand.expect(1..=3).await;
            hand.publish(4).await;
            hand.expect([4]).await;
            for reason in ["closed", "refused", "refused"] {
                hand.news.send(News::Away(reason.to_owned())).await.unwrap();
            }
            *hand.log.lock().unwrap() = Log::settled(6);
            hand.expect([5, 6]).await;
            *hand.log.lock().unwrap() = Log::settled(7);
            hand.expect([7]).await;
            // 8 is published to nobody.
            *hand.log.lock().unwrap() = Log {
                answers_left: Some(0),
                ..Log::settled(8)
            };
            hand.news.send(News::Here).await.unwrap();
            hand.publish(9).await;
            sleep(Duration::from_secs(20)).await;
            hand.log.lock().unwrap().answers_left = None;
            hand.expect([8, 9]).await;
            assert_eq!(told(), ["away", "back", "away", "back"]);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_lap_that_began_before_the_channel_came_does_not_count_as_its_own() {
    let world = World::with(1..=100, 100).await;
    world
        .follow(Some(""), async |hand| {
            // It tells where the lap ends, and then nothing for a while.
            hand.log.lock().unwrap().answers_left = Some(1);
            sleep(Duration::from_secs(1)).await;
            hand.news.send(News::Here).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            *hand.log.lock().unwrap() = Log::settled(300);
            hand.expect(1..=300).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_to_hold_back_is_walked() {
    let world = World::with(1..=500, 500).await;
    world
        .follow(Some(""), async |hand| {
            // It tells where the lap ends, and then nothing for a while.
            hand.log.lock().unwrap().answers_left = Some(1);
            hand.news.send(News::Here).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            for number in 501..=3000 {
                hand.publish(number).await;
            }
            sleep(Duration::from_secs(1)).await;
            *hand.log.lock().unwrap() = Log::settled(3000);
            hand.expect(1..=3000).await;
            hand.publish(3001).await;
            hand.expect([3001]).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_cursor_ends_it_with_a_channel_too() {
    let world = World::with(1..=3, 3).await;
    let wanted = world.fake.wanted(Some("x"));
    let end = soon(world.run(wanted, async |_| std::future::pending().await)).await;
    let Err(End::Failed(error)) = end else {
        panic!("it should fail: {end:?}");
    };
    assert_eq!(error.to_string(), "refused with status 422: no cursor");
}

/// Speaks enough of Redis' protocol for a subscriber: confirms, sends `messages`, and then is cut, or never answers again.
async fn serve_redis(stream: &mut BufReader<TcpStream>, messages: &[&str], is_cut: bool) -> std::io::Result<()> {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    loop {
        let mut words = Vec::new();
        let count = read_number(stream).await?;
        for _ in 0..count {
            let mut word = vec![0; read_number(stream).await? + 2];
            stream.read_exact(&mut word).await?;
            word.truncate(word.len() - 2);
            words.push(String::from_utf8(word).unwrap());
        }
        if words[0] != "SUBSCRIBE" {
            stream.write_all(b"+OK\r\n").await?;
            continue;
        }
        assert_eq!(words[1], "events");
        let mut reply = format!("*3\r\n{}{}:1\r\n", bulk("subscribe"), bulk("events"));
        for message in messages {
            reply += &format!("*3\r\n{}{}{}", bulk("message"), bulk("events"), bulk(message));
        }
        stream.write_all(reply.as_bytes()).await?;
        if !is_cut {
            stream.read_to_end(&mut Vec::new()).await?;
        }
        return Ok(());
    }
}

async fn read_number(stream: &mut BufReader<TcpStream>) -> std::io::Result<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let number = line.get(1..).and_then(|number| number.trim().parse().ok());
    number.ok_or(std::io::ErrorKind::UnexpectedEof.into())
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_cut_or_falls_silent_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = RedisUrl::from(format!("redis://{}", listener.local_addr().unwrap()));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for (messages, is_cut) in [(&["a", "b"][..], true), (&["c"], false), (&[], false)] {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that has gone is no failure.
            drop(serve_redis(&mut BufReader::new(stream), messages, is_cut).await);
        }
    });
    let news = Channel::new(&url, "events").unwrap().news();
    let heard: Vec<News> = soon(news.take(7).collect()).await;
    let message = |text: &str| News::Message(text.to_owned());
    let away = |reason: &str| News::Away(reason.to_owned());
    let expected = [
        News::Here,
        message("a"),
        message("b"),
        away("the connection was closed"),
        News::Here,
        message("c"),
        away("no answer in time"),
    ];
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn redis_without_a_usable_url_is_a_usage_error_that_shows_no_password() {
    for (arguments, word) in [
        (&["--redis", "--redis-url", ""], "--redis-url"),
        (&["--redis", "--redis-url", "http://:secret@host"], "must begin with"),
        (&["--redis", "--redis-url", "redis://:secret@"], "must be like"),
    ] {
        let arguments = ["eventsieve", "tail"].iter().chain(arguments);
        let cli = crate::cli::Cli::read(arguments.map(Into::into)).unwrap();
        assert!(!format!("{cli:?}").contains("secret"));
        let error = cli.run().await.unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains(word), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
