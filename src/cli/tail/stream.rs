//! Follows the service's own stream, and resumes it wherever it broke off.

use std::convert::Infallible;

use tokio::{io::AsyncWrite, select, time::sleep};

use super::{End, Wanted, outage::Outage, output::Output};
use crate::client::{ClientError, events::EventStream};

/// Prints events until there is a reason to end.
///
/// # Errors
/// The reason.
pub async fn follow<W: AsyncWrite + Unpin>(wanted: Wanted, output: &mut Output<W>) -> Result<Infallible, End> {
    let mut outage = Outage::new(wanted.client.target(), wanted.tell);
    // A stream without a position begins with what comes next, and one that broke off before its first event would have to begin
    // so again, later. So it gets a position first.
    let after = match &wanted.after {
        Some(after) => after.clone(),
        None => now(&wanted, &mut outage).await?,
    };
    let topic = wanted.topic.as_deref();
    let mut last = None;
    loop {
        let error = match wanted.client.stream(&after, topic, last.as_deref()).await {
            Ok(mut events) => {
                outage.back();
                print(&mut events, &after, &mut last, &mut outage, output).await?
            }
            Err(error) => error,
        };
        sleep(outage.failed(error)?).await;
    }
}

/// The place that what comes next is behind.
async fn now(wanted: &Wanted, outage: &mut Outage) -> Result<String, End> {
    loop {
        match wanted.client.log_end().await {
            Ok(edge) => {
                outage.is_over();
                return Ok(edge.last_stable);
            }
            Err(error) => sleep(outage.failed(error)?).await,
        }
    }
}

/// Prints what comes behind `last`, or behind `after` as long as there is none, and moves it on, until the stream breaks off; says why it did.
async fn print<W: AsyncWrite + Unpin>(
    events: &mut EventStream,
    after: &str,
    last: &mut Option<String>,
    outage: &mut Outage,
    output: &mut Output<W>,
) -> Result<ClientError, End> {
    loop {
        let event = select! {
            biased;
            event = events.next() => event,
            // Only when no event is at hand.
            () = async {}, if output.is_waiting() => {
                output.flush().await?;
                continue;
            }
        };
        match event {
            Ok(event) => {
                outage.is_over();
                if event.cursor.as_str() > last.as_deref().unwrap_or(after) {
                    output.print(&event.line).await?;
                    *last = Some(event.cursor);
                }
            }
            Err(error) => {
                output.flush().await?;
                return Ok(error);
            }
        }
    }
}
