//! Merges the messages of a channel with cursor reads over HTTP, so that every event is printed once, whatever the channel misses.
//!
//! The cursor read runs in *laps*: it asks how far the log reaches, and reads up to there page by page. A lap runs
//!
//! - at once when the channel is there (again), for what was missed; messages that come meanwhile are held back, so that events are
//!   printed in order;
//! - each second after that, until all is read that was committed when the channel came: an event that was published before that
//!   and becomes stable only later comes in no other way;
//! - each second while the channel is away;
//! - when so many events beyond its position were printed that it is time to forget some.

use std::{convert::Infallible, future::pending, pin::Pin, time::Duration};

use futures_util::stream::{Stream, StreamExt};
use tokio::{
    io::AsyncWrite,
    select,
    time::{Instant, sleep_until},
};

use super::{channel::News, end::End, outage::Outage, output::Output, seen::Seen, wanted::Wanted};
use crate::cli::error::UsageError;
use crate::client::{
    Client, ClientError,
    events::{EventText, LogEnd, Page},
};

/// The time between two laps when nothing calls for the next at once.
const LAP_INTERVAL: Duration = Duration::from_secs(1);

/// How many messages are held back at most. When there are more they are dropped, and another lap reads them.
const HELD_MAX: usize = 1000;
/// How many bytes of messages are held back at most.
const HELD_BYTES_MAX: usize = 8 << 20;

/// Prints what `news` and cursor reads bring, until there is a reason to end.
pub(crate) async fn follow<W: AsyncWrite + Unpin>(
    wanted: Wanted,
    mut news: impl Stream<Item = News> + Unpin,
    output: &mut Output<W>,
) -> Result<Infallible, End> {
    let client = wanted.client;
    let mut service = Outage::new(client.target(), wanted.report);
    let mut redis = Outage::new("Redis", wanted.report);
    let mut merge = Merge {
        output,
        topic: wanted.topic,
        seen: wanted.after.map(Seen::up_to),
        channel: Channel::Away,
        next: Next::End,
    };
    // No request is sent before this time.
    let mut free_at = Instant::now();
    let mut step = merge.step(&client, free_at);
    loop {
        select! {
            // A step ends seldom, and messages may come so fast that there is always one ready.
            biased;
            found = &mut step => {
                let wait = match found {
                    Ok(found) => {
                        service.is_over();
                        if matches!(&found, Found::Page(page) if page.truncated) {
                            service.truncated();
                        }
                        merge.found(found).await?
                    }
                    Err(error) => {
                        let wait = service.failed(error)?;
                        free_at = Instant::now() + wait;
                        wait
                    }
                };
                step = merge.step(&client, Instant::now() + wait);
            }
            // Not before there is a position: what is published to a subscriber comes behind it.
            Some(news) = news.next(), if merge.seen.is_some() => {
                let calls_for_lap = match news {
                    News::Message(text) => merge.message(&text).await?,
                    News::Here => {
                        redis.is_over();
                        merge.here()
                    }
                    News::Away(reason) => {
                        redis.away(&reason);
                        merge.away()
                    }
                    News::Failed(reason) => return Err(End::Failed(UsageError(reason).into())),
                };
                if calls_for_lap {
                    step = merge.step(&client, free_at);
                }
            }
            // Only when nothing is ready.
            () = async {}, if merge.output.is_waiting() => merge.output.flush().await?,
        }
    }
}

/// What the cursor read does next.
#[derive(Debug)]
enum Next {
    /// Nothing, until something calls for a lap.
    Rest,
    /// It begins a lap, and asks how far the log reaches.
    End,
    /// It reads a page of a lap that ends here.
    Page(String),
}

/// What the service answered.
enum Found {
    End(LogEnd),
    Page(Page),
}

type Step = Pin<Box<dyn Future<Output = Result<Found, ClientError>> + Send>>;

#[derive(Debug)]
enum Channel {
    /// It brings nothing.
    Away,
    /// It is there, and the cursor read has not caught up yet.
    Ahead {
        held: Vec<EventText>,
        /// Whether some messages were dropped.
        is_incomplete: bool,
        /// Events up to here may have been published before the channel was there.
        gap: String,
    },
    /// It is there, and its messages are printed. The cursor read goes on until it has read the gap.
    Here { gap: String },
}

struct Merge<'a, W> {
    output: &'a mut Output<W>,
    topic: Option<String>,
    /// Nothing as long as the position to begin with is not known.
    seen: Option<Seen>,
    channel: Channel,
    next: Next,
}

impl<W: AsyncWrite + Unpin> Merge<'_, W> {
    /// Does what is next, at its time. Dropping the future cancels it.
    fn step(&self, client: &Client, at: Instant) -> Step {
        let client = client.clone();
        match (&self.next, &self.seen) {
            (Next::Rest, _) => Box::pin(pending()),
            (Next::Page(_), Some(seen)) => {
                let (position, topic) = (seen.position().to_owned(), self.topic.clone());
                Box::pin(async move {
                    sleep_until(at).await;
                    client.scan(&position, topic.as_deref()).await.map(Found::Page)
                })
            }
            (Next::End | Next::Page(_), _) => Box::pin(async move {
                sleep_until(at).await;
                client.log_end().await.map(Found::End)
            }),
        }
    }

    /// Takes an answer, and says how long to wait before the next step.
    async fn found(&mut self, found: Found) -> Result<Duration, End> {
        match found {
            Found::End(end) => {
                self.seen.get_or_insert_with(|| Seen::up_to(end.last_stable.clone()));
                if let Channel::Ahead { gap, .. } = &mut self.channel {
                    *gap = end.newest;
                }
                self.next = Next::Page(end.last_stable);
                Ok(Duration::ZERO)
            }
            Found::Page(page) => self.page(page).await,
        }
    }

    async fn page(&mut self, page: Page) -> Result<Duration, End> {
        let Some(seen) = &mut self.seen else {
            return Ok(Duration::ZERO);
        };
        for event in page.events {
            if seen.is_new_in_scan(&event.cursor) {
                self.output.print(&event).await?;
            }
        }
        let is_end =
            matches!(&self.next, Next::Page(end) if page.next >= *end) || page.next.as_str() <= seen.position();
        seen.scanned_to(page.next);
        if is_end {
            self.lap_ended().await
        } else {
            Ok(Duration::ZERO)
        }
    }

    /// Says when the next lap is due, if one is.
    async fn lap_ended(&mut self) -> Result<Duration, End> {
        let Some(seen) = &mut self.seen else {
            return Ok(Duration::ZERO);
        };
        seen.forget_what_is_behind();
        self.next = Next::End;
        match &mut self.channel {
            Channel::Away => return Ok(LAP_INTERVAL),
            Channel::Ahead {
                is_incomplete: is_incomplete @ true,
                ..
            } => {
                *is_incomplete = false;
                return Ok(Duration::ZERO);
            }
            Channel::Ahead { held, gap, .. } => {
                for event in std::mem::take(held) {
                    if seen.is_new(&event.cursor) {
                        self.output.print(&event).await?;
                    }
                }
                self.channel = Channel::Here {
                    gap: std::mem::take(gap),
                };
            }
            Channel::Here { .. } => {}
        }
        let is_gap_shown = matches!(&self.channel, Channel::Here { gap } if seen.position() >= gap.as_str());
        if is_gap_shown && !seen.is_full() {
            self.next = Next::Rest;
        }
        Ok(LAP_INTERVAL)
    }

    /// Takes a message, and says whether it calls for a lap. A message that is not an event is skipped.
    async fn message(&mut self, text: &str) -> Result<bool, End> {
        let Some(event) = EventText::read(text) else {
            return Ok(false);
        };
        if self.topic.as_ref().is_some_and(|topic| *topic != event.topic) {
            return Ok(false);
        }
        match (&mut self.channel, &mut self.seen) {
            (
                Channel::Ahead {
                    held, is_incomplete, ..
                },
                _,
            ) => {
                held.push(event);
                let bytes: usize = held.iter().map(|event| event.line.len()).sum();
                if held.len() > HELD_MAX || bytes > HELD_BYTES_MAX {
                    held.clear();
                    *is_incomplete = true;
                }
            }
            (Channel::Here { .. }, Some(seen)) => {
                if seen.is_new(&event.cursor) {
                    self.output.print(&event).await?;
                }
                return Ok(seen.is_full() && self.begins_lap_at_rest());
            }
            // The cursor read will return it.
            _ => {}
        }
        Ok(false)
    }

    /// The channel is there. A lap that has begun is given up, because it would end before what was published since.
    fn here(&mut self) -> bool {
        self.channel = Channel::Ahead {
            held: Vec::new(),
            is_incomplete: false,
            gap: String::new(),
        };
        self.next = Next::End;
        true
    }

    /// The channel has gone. The cursor read will return what was held back. Says whether that calls for a lap.
    fn away(&mut self) -> bool {
        self.channel = Channel::Away;
        self.begins_lap_at_rest()
    }

    fn begins_lap_at_rest(&mut self) -> bool {
        let is_resting = matches!(self.next, Next::Rest);
        if is_resting {
            self.next = Next::End;
        }
        is_resting
    }
}
