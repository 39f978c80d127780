//! The channel of a Redis, merged with cursor reads.

use super::super::channel::News;
use super::*;

/// The log of a service: what is committed, and how much of it is stable.
#[derive(Debug, Default)]
struct Log {
    events: Vec<u64>,
    stable: u64,
    /// How many requests are answered before it is down, if it is.
    answers_left: Option<u32>,
}

impl Log {
    fn stable(last: u64) -> Self {
        Self {
            events: (1..=last).collect(),
            stable: last,
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
            return page(self.events.iter().max().copied(), self.stable);
        };
        let after = query.split('&').next().unwrap();
        if !after.is_empty() && after.parse::<u64>().is_err() {
            return Answer::Whole(422, r#"{"detail":"no cursor"}"#.to_owned());
        }
        let after = after.parse().unwrap_or(0);
        // Small pages, so that a lap has several.
        let mut events: Vec<u64> = self.events.clone();
        events.retain(|event| (after + 1..=self.stable).contains(event) && (!query.contains("even") || event % 2 == 0));
        events.sort_unstable();
        let is_last = events.len() <= 100;
        events.truncate(100);
        let next = if is_last { self.stable.max(after) } else { events[99] };
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
    async fn with(events: impl IntoIterator<Item = u64>, stable: u64) -> Self {
        let log = Arc::new(Mutex::new(Log {
            events: events.into_iter().collect(),
            stable,
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
async fn the_channel_continues_where_the_cursor_read_ends() {
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
async fn without_a_position_it_begins_with_the_next_event_of_its_topic() {
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
async fn it_subscribes_only_once_its_position_is_known() {
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
async fn events_that_become_stable_late_are_printed() {
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
                log.stable = 9;
            }
            hand.expect(6..=8).await;
            hand.publish(10).await;
            hand.expect([10]).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_missed_while_redis_is_away() {
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
            *hand.log.lock().unwrap() = Log::stable(6);
            hand.expect([5, 6]).await;
            *hand.log.lock().unwrap() = Log::stable(7);
            hand.expect([7]).await;
            // 8 is published while no subscriber is connected.
            *hand.log.lock().unwrap() = Log {
                answers_left: Some(0),
                ..Log::stable(8)
            };
            hand.news.send(News::Here).await.unwrap();
            hand.publish(9).await;
            sleep(Duration::from_secs(20)).await;
            hand.log.lock().unwrap().answers_left = None;
            hand.expect([8, 9]).await;
            assert_eq!(reports(), ["away", "back", "away", "back"]);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_lap_that_began_before_the_channel_does_not_count() {
    let world = World::with(1..=100, 100).await;
    world
        .follow(Some(""), async |hand| {
            // It tells where the lap ends, and then nothing for a while.
            hand.log.lock().unwrap().answers_left = Some(1);
            sleep(Duration::from_secs(1)).await;
            hand.news.send(News::Here).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            *hand.log.lock().unwrap() = Log::stable(300);
            hand.expect(1..=300).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn messages_beyond_the_limit_come_from_the_cursor_read() {
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
            *hand.log.lock().unwrap() = Log::stable(3000);
            hand.expect(1..=3000).await;
            hand.publish(3001).await;
            hand.expect([3001]).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_cursor_ends_it_with_a_channel() {
    let world = World::with(1..=3, 3).await;
    let wanted = world.fake.wanted(Some("x"));
    let end = soon(world.run(wanted, async |_| std::future::pending().await)).await;
    let Err(End::Failed(error)) = end else {
        panic!("it should fail: {end:?}");
    };
    assert_eq!(error.to_string(), "rejected with status 422: no cursor");
}

#[derive(clap::Parser)]
struct Tail {
    #[command(flatten)]
    arguments: Args,
}

/// The channel of this Redis.
fn channel(url: &str) -> Channel {
    let tail = <Tail as clap::Parser>::parse_from(["tail", "--redis", "--redis-url", url]);
    tail.arguments.channel().unwrap()
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
async fn a_subscription_that_is_cut_or_silent_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for (messages, is_cut) in [(&["a", "b"][..], true), (&["c"], false), (&[], false)] {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that has gone is no failure.
            drop(serve_redis(&mut BufReader::new(stream), messages, is_cut).await);
        }
    });
    let news = channel(&url).news();
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
async fn a_bad_redis_url_is_a_usage_error_without_password() {
    for (arguments, word) in [
        (&["--redis", "--redis-url", ""][..], "--redis-url"),
        (&["--redis", "--redis-url", "http://:secret@host"], "must begin with"),
        (&["--redis", "--redis-url", "redis://:secret@"], "must be like"),
        (
            &["--redis", "--redis-url", "redis://:secret@h", "--redis-sharded"],
            "REDIS_SHARDED",
        ),
    ] {
        let arguments = ["eventsieve", "tail"].iter().chain(arguments);
        let cli = crate::cli::Cli::read(arguments.map(Into::into)).unwrap();
        assert!(!format!("{cli:?}").contains("secret"));
        let error = cli.run().await.unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains(word), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
