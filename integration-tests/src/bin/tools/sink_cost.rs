//! The cost of publishing stored events: the service without Redis, with a Redis channel, and with a channel and a stream; and
//! the service with 500 subscribers of `/events/stream` against the service with none.

use anyhow::Result;
use serde_json::{Value, json};

use crate::report::{self, Ratio, Results};
use crate::runs::Servers;
use crate::sides::{Side, Sink, Store, What};

const CHANNEL: Side = Side::new(What::Service(Store::Postgres, 1000), 8, 200_000);
const NOTHING: Side = Side {
    sink: Sink::Nothing,
    ..CHANNEL
};
const CHANNEL_AND_STREAM: Side = Side {
    sink: Sink::ChannelAndStream,
    ..CHANNEL
};
/// A tenth of the events, because each of them is sent 500 times. The number of connections distinguishes it in the table.
const UNSUBSCRIBED: Side = Side {
    events: CHANNEL.events / 10,
    connections: 4,
    ..NOTHING
};
const SUBSCRIBED: Side = Side {
    stream_subscribers: 500,
    ..UNSUBSCRIBED
};

/// All sides, in rounds.
pub async fn sink_cost(servers: &Servers, rounds: usize) -> Result<Value> {
    let sides = [NOTHING, CHANNEL, CHANNEL_AND_STREAM, UNSUBSCRIBED, SUBSCRIBED];
    let results = Results::of(servers, &sides, rounds).await?;
    let ratios: Vec<Ratio> = [
        (CHANNEL, NOTHING),
        (CHANNEL_AND_STREAM, NOTHING),
        (SUBSCRIBED, UNSUBSCRIBED),
    ]
    .into_iter()
    .map(|(side, base)| results.ratio(side, base, |run| run.rate))
    .filter(|ratio| !ratio.value.is_nan())
    .collect();
    println!("\n{}\n{}", results.table(), report::ratios(&ratios));
    Ok(json!({
        "sides": results.json(),
        "ratios": ratios.iter().map(Ratio::json).collect::<Vec<_>>(),
    }))
}
