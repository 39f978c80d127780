//! Where to begin, and the events that are printed before those that come next.

use tokio::io::AsyncWrite;
use tokio::time::sleep;

use super::{end::End, outage::Outage, output::Output, wanted::Wanted};
use crate::api::events::LIMIT_MAX;
use crate::cli::since::Since;
use crate::client::ClientError;
use crate::client::events::{EventText, Page};

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// With what is stored next.
    Next,
    /// Behind this cursor; empty: with the first event of the log.
    After(String),
    /// With the last so many events.
    Last(u64),
    /// With the events of the log whose timestamp is not before this time.
    Since(Since),
}

/// Which events are asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) topic: Option<String>,
    pub(crate) source: Option<String>,
}

impl Filter {
    fn query<'a>(&'a self, parameters: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let filters = [("topic", self.topic.as_deref()), ("source", self.source.as_deref())];
        let filters = filters.into_iter().filter_map(|(name, value)| Some((name, value?)));
        parameters.iter().copied().chain(filters).collect()
    }
}

/// Prints what `start` asks for of the events that are in the log now, and gives back the cursor to follow from, if any. It waits
/// while the service is away.
pub(crate) async fn begin<W: AsyncWrite + Unpin>(
    start: Start,
    filter: &Filter,
    wanted: &Wanted,
    output: &mut Output<W>,
) -> Result<Option<String>, End> {
    let mut outage = Outage::new(wanted.client.target(), wanted.report);
    match start {
        Start::Next => Ok(None),
        Start::After(cursor) => Ok(Some(cursor)),
        Start::Last(count) => loop {
            match last(count, filter, wanted).await {
                Ok((events, position)) => {
                    outage.is_over();
                    for event in events {
                        output.print(&event).await?;
                    }
                    output.flush().await?;
                    return Ok(Some(position));
                }
                Err(error) => sleep(outage.failed(error)?).await,
            }
        },
        Start::Since(time) => since(time, filter, wanted, &mut outage, output).await.map(Some),
    }
}

/// The last `count` events up to the last stable position, in log order, and that position. Events that are not yet stable come next.
async fn last(count: u64, filter: &Filter, wanted: &Wanted) -> Result<(Vec<EventText>, String), ClientError> {
    let position = wanted.client.log_end().await?.last_stable;
    let mut lines = wanted.client.lines(&filter.query(&[("order", "desc")])).await?;
    let mut found = Vec::new();
    while (found.len() as u64) < count
        && let Some(event) = lines.next().await?
    {
        if event.cursor <= position {
            found.push(event);
        }
    }
    found.reverse();
    Ok((found, position))
}

/// Prints the events of the log since `time`, and gives back the position up to which they were printed.
async fn since<W: AsyncWrite + Unpin>(
    time: Since,
    filter: &Filter,
    wanted: &Wanted,
    outage: &mut Outage,
    output: &mut Output<W>,
) -> Result<String, End> {
    let end = loop {
        match wanted.client.log_end().await {
            Ok(end) => break end.last_stable,
            Err(error) => sleep(outage.failed(error)?).await,
        }
    };
    let (time, limit) = (time.to_string(), LIMIT_MAX.to_string());
    let mut position = String::new();
    loop {
        let query = filter.query(&[("after", &position), ("since", &time), ("limit", &limit)]);
        match wanted.client.page(&query).await {
            Ok(Page { events, next, .. }) => {
                outage.is_over();
                for event in events {
                    output.print(&event).await?;
                }
                let is_end = next >= end || next <= position;
                position = next.max(position);
                if is_end {
                    output.flush().await?;
                    return Ok(position);
                }
            }
            Err(error) => sleep(outage.failed(error)?).await,
        }
    }
}
