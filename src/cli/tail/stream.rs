//! Follows the stream of the service, and resumes it wherever it broke off.

use std::convert::Infallible;

use tokio::{io::AsyncWrite, select, time::sleep};

use super::{end::End, outage::Outage, output::Output, wanted::Wanted};
use crate::client::{
    ClientError,
    events::{EventStream, Frame},
};

/// Prints events until there is a reason to end.
pub(crate) async fn follow<W: AsyncWrite + Unpin>(wanted: Wanted, output: &mut Output<W>) -> Result<Infallible, End> {
    let mut outage = Outage::new(wanted.client.target(), wanted.report);
    // A stream without a position begins with what comes next. If it broke off before its first event, it would begin so again,
    // later, and miss what was stored meanwhile. So it gets a position first.
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

/// The position behind which the next events will be.
async fn now(wanted: &Wanted, outage: &mut Outage) -> Result<String, End> {
    loop {
        match wanted.client.log_end().await {
            Ok(end) => {
                outage.is_over();
                return Ok(end.last_stable);
            }
            Err(error) => sleep(outage.failed(error)?).await,
        }
    }
}

/// Prints what comes behind `last`, or behind `after` as long as there is no last event, until the stream breaks off; gives back why
/// it did.
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
            Ok(Frame::Truncated) => outage.truncated(),
            Ok(Frame::Event(event)) => {
                outage.is_over();
                if event.cursor.as_str() > last.as_deref().unwrap_or(after) {
                    output.print(&event).await?;
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
