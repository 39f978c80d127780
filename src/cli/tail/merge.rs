//! Weaves what a channel brings together with walks over HTTP, so that every event is printed once, whatever the channel forgets.
//!
//! The walk goes in *laps*: it asks how far the log reaches, and goes there page by page. It runs a lap
//!
//! - at once when the channel is there (again), for what was missed; what the channel brings meanwhile is held back, so that it is
//!   printed behind what it comes behind;
//! - each second after that, until it has shown all that was committed when the channel came: an event that was published before
//!   and is settled only later comes in no other way;
//! - each second while the channel is away;
//! - when so many events beyond its position were printed that it is time to forget some.

use std::{convert::Infallible, future::pending, pin::Pin, time::Duration};

use futures_util::stream::{Stream, StreamExt};
use tokio::{
    io::AsyncWrite,
    select,
    time::{Instant, sleep_until},
};

use super::{End, Wanted, channel::News, outage::Outage, output::Output, seen::Seen};
use crate::client::{
    Client, ClientError,
    events::{EventText, LogEnd, Page},
};

/// The time between two laps when nothing calls for the next at once.
const LAP_INTERVAL: Duration = Duration::from_secs(1);

/// How many messages are held back at most. When there are more they are forgotten: another lap shows them.
const HELD_MAX: usize = 1000;
/// Nor more than so many bytes of them.
const HELD_BYTES_MAX: usize = 8 << 20;

/// Prints what `news` and walks bring, until there is a reason to end.
///
/// # Errors
/// The reason.
pub async fn follow<W: AsyncWrite + Unpin>(
    wanted: Wanted,
    mut news: impl Stream<Item = News> + Unpin,
    output: &mut Output<W>,
) -> Result<Infallible, End> {
    let client = wanted.client;
    let mut service = Outage::new(client.target(), wanted.tell);
    let mut redis = Outage::new("Redis", wanted.tell);
    let mut merge = Merge {
        output,
        topic: wanted.topic,
        seen: wanted.after.map(Seen::up_to),
        channel: Channel::Away,
        next: Next::Edge,
    };
    // The service is left alone until then.
    let mut free_at = Instant::now();
    let mut step = merge.step(&client, free_at);
    loop {
        select! {
            // A step ends seldom, and messages may come so fast that there is always one at hand.
            biased;
            found = &mut step => {
                let wait = match found {
                    Ok(found) => {
                        service.is_over();
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
                };
                if calls_for_lap {
                    step = merge.step(&client, free_at);
                }
            }
            // Only when nothing is at hand.
            () = async {}, if merge.output.is_waiting() => merge.output.flush().await?,
        }
    }
}

/// What the walk does next.
#[derive(Debug)]
enum Next {
    /// Nothing, until something calls for a lap.
    Rest,
    /// It begins a lap, and asks how far it goes.
    Edge,
    /// It reads a page of a lap that ends here.
    Page(String),
}

/// What the service answered.
enum Found {
    Edge(LogEnd),
    Page(Page),
}

type Step = Pin<Box<dyn Future<Output = Result<Found, ClientError>> + Send>>;

#[derive(Debug)]
enum Channel {
    /// It brings nothing.
    Away,
    /// It is there, and the walk has not caught up yet.
    Ahead {
        held: Vec<EventText>,
        /// Whether some of what was held is forgotten.
        is_incomplete: bool,
        /// What is up to here may have been published before the channel was there.
        gap: String,
    },
    /// It is there, and what it brings is printed. The walk goes on until it has shown the gap.
    Here { gap: String },
}

struct Merge<'a, W> {
    output: &'a mut Output<W>,
    topic: Option<String>,
    /// Nothing as long as it is not known where to begin.
    seen: Option<Seen>,
    channel: Channel,
    next: Next,
}

impl<W: AsyncWrite + Unpin> Merge<'_, W> {
    /// Does what is next, at its time. Dropping it is giving it up.
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
            (Next::Edge | Next::Page(_), _) => Box::pin(async move {
                sleep_until(at).await;
                client.log_end().await.map(Found::Edge)
            }),
        }
    }

    /// Takes an answer, and says how long to wait before the next step.
    async fn found(&mut self, found: Found) -> Result<Duration, End> {
        match found {
            Found::Edge(edge) => {
                self.seen.get_or_insert_with(|| Seen::up_to(edge.last_stable.clone()));
                if let Channel::Ahead { gap, .. } = &mut self.channel {
                    *gap = edge.newest;
                }
                self.next = Next::Page(edge.last_stable);
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
            if seen.is_new_in_walk(&event.cursor) {
                self.output.print(&event.line).await?;
            }
        }
        let is_end =
            matches!(&self.next, Next::Page(end) if page.next >= *end) || page.next.as_str() <= seen.position();
        seen.walked_to(page.next);
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
        self.next = Next::Edge;
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
                        self.output.print(&event.line).await?;
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

    /// Takes a message, and says whether it calls for a lap. What is no event is not the service's.
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
                    self.output.print(&event.line).await?;
                }
                return Ok(seen.is_full() && self.begins_lap_at_rest());
            }
            // The walk shows it.
            _ => {}
        }
        Ok(false)
    }

    /// The channel is there. A lap that has begun is given up: it does not know what was published since.
    fn here(&mut self) -> bool {
        self.channel = Channel::Ahead {
            held: Vec::new(),
            is_incomplete: false,
            gap: String::new(),
        };
        self.next = Next::Edge;
        true
    }

    /// The channel has gone. What was held back, the walk will show. Says whether that calls for a lap.
    fn away(&mut self) -> bool {
        self.channel = Channel::Away;
        self.begins_lap_at_rest()
    }

    fn begins_lap_at_rest(&mut self) -> bool {
        let is_resting = matches!(self.next, Next::Rest);
        if is_resting {
            self.next = Next::Edge;
        }
        is_resting
    }
}
