//! What the flush functions cost: `append_v2`, and `append_v2_row` for a row, raw against one CTE statement that stores the same rows and counts them in
//! the same transaction, but does not read first copies (so it can tell no conflict and name no first cursor).
//!
//! Both run on the same schema with the same rows, 30 % of them duplicates, from four connections, in turn, several
//! rounds; the ratio of a round is of its own two sides, and the median of the ratios is the figure.
//! `make flush-cost` runs it on a throwaway PostgreSQL with fsync on. `ROUNDS` and `SECONDS_EACH` may be set.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Connection, Executor};
use tokio::task::JoinSet;
use uuid::Uuid;

const SCHEMA: [&str; 2] = [
    include_str!("../../../migrations/postgres/0001_log.sql"),
    include_str!("../../../migrations/postgres/0004_append_v2.sql"),
];

const FUNCTION: &str = "select * from append_v2($1, $2, null, null, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

/// The flush of a single row, from the same arrays: those that it does not take must be named all the same.
const FUNCTION_OF_A_ROW: &str = "select * from append_v2_row($1, $2, null, null, ($3::text[])[1], ($4::text[])[1],
    ($5::timestamptz[])[1], ($6::text[])[1], ($7::text[])[1], ($9::int[])[1])
    where $8::int[] is not null and $10::text[] is not null and $11::bigint[] is not null and $12::bigint[] is not null";

const SINGLE_CTE: &str = "
with flush as (
    insert into batches (batch, flush_id, received_at)
    select xid_offset + pg_current_xact_id()::text::bigint, $1, now() from log
    returning batch, received_at
), stored as (
    insert into events (topic, event_id, occurred_at, source, payload, received_at, batch, position)
    select r.topic, r.event_id, r.occurred_at, r.source, r.payload::json, flush.received_at, flush.batch, r.position
    from flush, unnest($3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[], $8::int[])
        as r(topic, event_id, occurred_at, source, payload, position)
    on conflict (topic, event_id) do nothing
    returning topic, position
), counted as (
    insert into topic_counts as c (topic, shard, received, unique_processed, duplicate_dropped, conflicts)
    select t.topic, $2, t.received, coalesce(s.stored, 0), t.received - coalesce(s.stored, 0), 0
    from unnest($10::text[], $11::bigint[], $12::bigint[]) as t(topic, received, rows)
        left join (select topic, count(*) as stored from stored group by topic) s on s.topic = t.topic
    order by t.topic
    on conflict (topic, shard) do update set
        received = c.received + excluded.received,
        unique_processed = c.unique_processed + excluded.unique_processed,
        duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped
)
select flush.batch, flush.received_at, (select array_agg(position) from stored) from flush where $9::int[] is not null";

const CONNECTIONS: u64 = 4;
const TOPICS: u64 = 8;
const BATCH_SIZES: [usize; 4] = [1, 100, 1000, 5000];

/// The rows of one flush as the arrays that both statements take.
struct Rows {
    topics: Vec<String>,
    event_ids: Vec<String>,
    occurred: Vec<DateTime<Utc>>,
    sources: Vec<String>,
    payloads: Vec<String>,
    positions: Vec<i32>,
    copies: Vec<i32>,
    count_topics: Vec<String>,
    counts: Vec<i64>,
}

/// A small generator (SplitMix64, Steele et al. 2014), so that both sides get the same rows.
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rows {
    /// `size` events of which 30 % have been sent before, sorted as a flush is; `next` counts the distinct ones so far.
    fn generate(size: usize, connection: u64, next: &mut u64, state: &mut u64) -> Rows {
        let mut ids: Vec<u64> = (0..size)
            .map(|_| {
                if *next > 0 && mix(state) % 10 < 3 {
                    mix(state) % *next
                } else {
                    *next += 1;
                    *next - 1
                }
            })
            .collect();
        ids.sort_by_key(|id| (id % TOPICS, *id));
        ids.dedup();
        let topic = |id: &u64| format!("topic.{}", id % TOPICS);
        let mut count_topics: Vec<String> = ids.iter().map(topic).collect();
        count_topics.dedup();
        let counts = count_topics
            .iter()
            .map(|t| ids.iter().filter(|id| topic(id) == *t).count() as i64)
            .collect();
        Rows {
            topics: ids.iter().map(topic).collect(),
            event_ids: ids.iter().map(|id| format!("evt-{connection}-{id:016x}")).collect(),
            occurred: vec![DateTime::from_timestamp_nanos(1_700_000_000_000_000_000); ids.len()],
            sources: vec!["checkout-service".to_owned(); ids.len()],
            payloads: ids.iter().map(|id| payload(*id)).collect(),
            positions: (0..).take(ids.len()).collect(),
            copies: vec![1; ids.len()],
            count_topics,
            counts,
        }
    }
}

fn payload(id: u64) -> String {
    format!(
        r#"{{"order_id":"ord-{id}","customer":{{"id":{id},"email":"customer{id}@example.com","tier":"gold"}},"items":[{{"sku":"A-100","quantity":2,"price":19.90}},{{"sku":"B-200","quantity":1,"price":5.00}}],"total":44.80,"currency":"EUR"}}"#
    )
}

/// Flushes on one connection until the time is up; answers with the events sent.
async fn load(
    options: PgConnectOptions,
    statement: &'static str,
    size: usize,
    connection: u64,
    time: Duration,
) -> Result<f64> {
    let mut pg = PgConnection::connect_with(&options).await?;
    let (mut next, mut state) = (0, connection);
    let prepared: Vec<Rows> = (0..(400_000 / size).clamp(8, 4000))
        .map(|_| Rows::generate(size, connection, &mut next, &mut state))
        .collect();
    let (start, mut events, mut flushes) = (Instant::now(), 0, prepared.iter());
    while start.elapsed() < time {
        let Some(rows) = flushes.next() else { break };
        sqlx::query(statement)
            .bind(Uuid::new_v4())
            .bind(i32::try_from(connection)?)
            .bind(&rows.topics)
            .bind(&rows.event_ids)
            .bind(&rows.occurred)
            .bind(&rows.sources)
            .bind(&rows.payloads)
            .bind(&rows.positions)
            .bind(&rows.copies)
            .bind(&rows.count_topics)
            .bind(&rows.counts)
            .bind(&rows.counts)
            .execute(&mut pg)
            .await?;
        events += rows.topics.len() as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    pg.close().await?;
    Ok(events as f64 / seconds)
}

/// One side of one round, on empty tables: events per second of all connections together.
async fn side(options: &PgConnectOptions, statement: &'static str, size: usize, time: Duration) -> Result<f64> {
    let mut pg = PgConnection::connect_with(options).await?;
    pg.execute("truncate events, batches, topic_counts; checkpoint").await?;
    let mut tasks = JoinSet::new();
    for connection in 0..CONNECTIONS {
        tasks.spawn(load(options.clone(), statement, size, connection, time));
    }
    let mut total = 0.0;
    for result in tasks.join_all().await {
        total += result?;
    }
    let drift: i64 = sqlx::query_scalar(
        "select (select count(*) from events) - (select sum(unique_processed)::bigint from topic_counts)",
    )
    .fetch_one(&mut pg)
    .await?;
    ensure!(drift == 0, "counters and rows differ by {drift}");
    Ok(total)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("DATABASE_URL")
        .context("DATABASE_URL names a PostgreSQL for the measurement: see make flush-cost")?;
    let server: PgConnectOptions = url.parse()?;
    let (rounds, time) = (setting("ROUNDS", 5), Duration::from_secs(setting("SECONDS_EACH", 4)));
    let name = format!("flush_cost_{}", Uuid::new_v4().simple());
    let mut admin = PgConnection::connect_with(&server).await?;
    admin
        .execute(sqlx::AssertSqlSafe(format!("create database {name}")))
        .await?;
    let result = measure(&server.clone().database(&name), rounds, time).await;
    admin
        .execute(sqlx::AssertSqlSafe(format!("drop database {name} with (force)")))
        .await?;
    result
}

async fn measure(options: &PgConnectOptions, rounds: u64, time: Duration) -> Result<()> {
    let mut pg = PgConnection::connect_with(options).await?;
    for migration in SCHEMA {
        pg.execute(migration).await?;
    }
    println!("{CONNECTIONS} connections, 30 % duplicates, {rounds} rounds of {time:?} a side; medians");
    println!(
        "{:>10} {:>22} {:>22} {:>8}",
        "rows/flush", "function, events/s", "one CTE events/s", "ratio"
    );
    for size in BATCH_SIZES {
        let (mut function, mut single, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let ours = if size == 1 { FUNCTION_OF_A_ROW } else { FUNCTION };
        for _ in 0..rounds {
            let a = side(options, ours, size, time).await?;
            let b = side(options, SINGLE_CTE, size, time).await?;
            function.push(a);
            single.push(b);
            ratios.push(a / b);
        }
        println!(
            "{size:>10} {:>22.0} {:>22.0} {:>8.2}",
            median(function),
            median(single),
            median(ratios)
        );
    }
    Ok(())
}
