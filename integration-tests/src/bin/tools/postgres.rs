//! PostgreSQL's protocol (version 3.0: the chapter "Frontend/Backend Protocol" of its manual) as the load side speaks it: one
//! prepared statement, whose messages are built before the clock starts. No client could be faster.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::events::{Event, SOURCE, TIMESTAMP_MICROS};

/// A statement that stores a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    /// The group commit of the service, as `src/store/postgres/append.rs` has it, without an outbox lease.
    GroupCommit,
    /// Its form for a batch of a single row.
    GroupCommitRow,
    /// What a user would write by hand: rows into a table whose primary key is the identity, and the counters of the topics in a second
    /// transaction. It reads no first copies, keeps no ledger and owes nothing to a sink.
    ByHand,
}

impl Statement {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Statement::GroupCommit | Statement::GroupCommitRow => "group commit",
            Statement::ByHand => "table by hand",
        }
    }

    /// Its SQL. All take the same parameters.
    pub fn sql(self) -> &'static str {
        match self {
            Statement::GroupCommit => {
                "select * from eventsieve.append($1, $2, null, null, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
            }
            Statement::GroupCommitRow => GROUP_COMMIT_ROW,
            Statement::ByHand => "call by_hand.store($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        }
    }
}

/// It is given arrays, and mentions those that it does not use, because PostgreSQL must know the type of each.
const GROUP_COMMIT_ROW: &str = "
    select * from eventsieve.append_row($1, $2, null, null, ($3::text[])[1], ($4::text[])[1], ($5::timestamptz[])[1],
        ($6::text[])[1], ($7::text[])[1], ($9::int[])[1], ($13::bigint[])[1], ($14::uuid[])[1])
    where $8::int[] is not null and $10::text[] is not null and $11::bigint[] is not null and $12::bigint[] is not null";

/// The tables that a user would write by hand. Both transactions are one call, which saves that user a round trip.
pub const BY_HAND: &str = "
create schema if not exists by_hand;
create table if not exists by_hand.events (
    topic text not null, event_id text not null, occurred_at timestamptz not null, source text not null, payload json not null,
    received_at timestamptz not null default now(), number bigint, primary key (topic, event_id)
);
create table if not exists by_hand.counts (
    topic text primary key, received bigint not null, unique_processed bigint not null
);
create or replace procedure by_hand.store(
    p_id uuid, p_shard int, p_topics text[], p_event_ids text[], p_occurred timestamptz[], p_sources text[], p_payloads text[],
    p_positions int[], p_copies int[], p_count_topics text[], p_count_received bigint[], p_count_rows bigint[], p_digests bigint[],
    p_keys uuid[]
) language plpgsql as $$
declare v_topics text[]; v_stored bigint[];
begin
    with stored as (
        insert into by_hand.events (topic, event_id, occurred_at, source, payload)
        select r.topic, r.event_id, r.occurred_at, r.source, r.payload::json
        from unnest(p_topics, p_event_ids, p_occurred, p_sources, p_payloads) as r(topic, event_id, occurred_at, source, payload)
        on conflict do nothing
        returning topic
    )
    select array_agg(topic), array_agg(stored) into v_topics, v_stored
    from (select topic, count(*) as stored from stored group by topic) s;
    commit;
    insert into by_hand.counts as c (topic, received, unique_processed)
    select t.topic, t.received, coalesce(s.stored, 0)
    from unnest(p_count_topics, p_count_received) as t(topic, received)
        left join unnest(v_topics, v_stored) as s(topic, stored) on s.topic = t.topic
    order by t.topic
    on conflict (topic) do update set
        received = c.received + excluded.received, unique_processed = c.unique_processed + excluded.unique_processed;
end $$";

/// One row, and nothing else.
pub const INSERT: &str = "insert into by_hand.events (topic, event_id, occurred_at, source, payload, number)
    values ($1, $2, $3, $4, $5, $6) on conflict do nothing";

/// One row, and the exact counter of its topic, as one statement and one transaction.
pub const INSERT_AND_COUNT: &str = "with stored as (
        insert into by_hand.events (topic, event_id, occurred_at, source, payload, number)
        values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning 1
    )
    insert into by_hand.counts as c (topic, received, unique_processed)
    select $1, 1, count(*) from stored
    on conflict (topic) do update set
        received = c.received + 1, unique_processed = c.unique_processed + excluded.unique_processed";

const TEXT: i32 = 25;
const TIMESTAMPTZ: i32 = 1184;
const INT4: i32 = 23;
const INT8: i32 = 20;
const UUID: i32 = 2950;

/// Connects to a database that asks for no password, and prepares the statement.
pub async fn connect(address: &str, database: &str, statement: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut startup = 196_608i32.to_be_bytes().to_vec();
    for text in ["user", "postgres", "database", database, ""] {
        push_text(&mut startup, text);
    }
    let mut length = length_of(startup.len() + 4);
    length.append(&mut startup);
    stream.write_all(&length).await?;
    read_until_ready(&mut stream).await?;
    let mut parse = Vec::new();
    push_text(&mut parse, "s");
    push_text(&mut parse, statement);
    parse.extend(0i16.to_be_bytes());
    stream
        .write_all(&[message(b'P', &parse), message(b'S', &[])].concat())
        .await?;
    read_until_ready(&mut stream).await?;
    Ok(stream)
}

async fn read_until_ready(stream: &mut TcpStream) -> Result<()> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    while answer(&read)?.is_none() {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            bail!("the server has closed the connection");
        }
        read.extend_from_slice(&buffer[..count]);
    }
    Ok(())
}

/// The length of the answer at the beginning of `read`, up to "ready for query", if it is complete.
pub fn answer(read: &[u8]) -> Result<Option<usize>> {
    let mut at = 0;
    while let Some(head) = read.get(at..at + 5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize + 1;
        let Some(message) = read.get(at..at + length) else {
            return Ok(None);
        };
        at += length;
        match message[0] {
            b'E' => bail!("PostgreSQL: {}", String::from_utf8_lossy(&message[5..])),
            b'Z' => return Ok(Some(at)),
            _ => {}
        }
    }
    Ok(None)
}

/// The messages of a batch, whose rows are counted in this shard: built as a writer builds them.
pub fn batch(events: &[Event], shard: i32) -> Vec<u8> {
    let mut indexes: Vec<usize> = (0..events.len()).collect();
    let identity = |index: usize| (&events[index].topic, &events[index].event_id);
    indexes.sort_by_key(|&index| (identity(index), index));
    // The first copy of each event, and the number of its copies.
    let mut rows: Vec<(usize, i32)> = Vec::new();
    for index in indexes {
        match rows.last_mut() {
            Some((first, copies)) if identity(*first) == identity(index) => *copies += 1,
            _ => rows.push((index, 1)),
        }
    }
    let mut topics: Vec<(&str, i64, i64)> = Vec::new();
    for &(index, copies) in &rows {
        let topic = events[index].topic.as_str();
        if topics.last().is_none_or(|(last, ..)| *last != topic) {
            topics.push((topic, 0, 0));
        }
        if let Some((_, received, rows)) = topics.last_mut() {
            *received += i64::from(copies);
            *rows += 1;
        }
    }
    let text = |of: fn(&Event) -> &str| array(TEXT, rows.iter().map(|&(index, _)| of(&events[index]).as_bytes()));
    let position = |index: usize| i32::try_from(index).expect("a batch is small").to_be_bytes();
    bind(&[
        Uuid::new_v4().as_bytes(),
        &shard.to_be_bytes(),
        &text(|event| &event.topic),
        &text(|event| &event.event_id),
        &array(TIMESTAMPTZ, rows.iter().map(|_| TIMESTAMP_MICROS.to_be_bytes())),
        &text(|_| SOURCE),
        &text(|event| &event.payload),
        &array(INT4, rows.iter().map(|&(index, _)| position(index))),
        &array(INT4, rows.iter().map(|&(_, copies)| copies.to_be_bytes())),
        &array(TEXT, topics.iter().map(|(topic, ..)| topic.as_bytes())),
        &array(INT8, topics.iter().map(|(_, received, _)| received.to_be_bytes())),
        &array(INT8, topics.iter().map(|(.., rows)| rows.to_be_bytes())),
        &array(
            INT8,
            rows.iter()
                .map(|&(index, _)| half_of_key(&events[index], 2).to_be_bytes()),
        ),
        &array(UUID, rows.iter().map(|&(index, _)| key(&events[index]))),
    ])
}

/// A key and a digest as the service makes them: random bits that follow from the identity. (Here the digest does, too: a duplicate
/// has the payload of its first copy.)
fn key(event: &Event) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&half_of_key(event, 0).to_be_bytes());
    key[8..].copy_from_slice(&half_of_key(event, 1).to_be_bytes());
    key
}

fn half_of_key(event: &Event, half: u8) -> u64 {
    let mut hasher = DefaultHasher::new();
    (half, &event.topic, &event.event_id).hash(&mut hasher);
    hasher.finish()
}

/// The messages of a single row, which is a batch of its own with this number.
pub fn row(event: &Event, batch: i64) -> Vec<u8> {
    bind(&[
        event.topic.as_bytes(),
        event.event_id.as_bytes(),
        &TIMESTAMP_MICROS.to_be_bytes(),
        SOURCE.as_bytes(),
        event.payload.as_bytes(),
        &batch.to_be_bytes(),
    ])
}

/// Bind, Execute and Sync; parameters and results are binary.
fn bind(parameters: &[&[u8]]) -> Vec<u8> {
    let mut bind = Vec::new();
    push_text(&mut bind, "");
    push_text(&mut bind, "s");
    bind.extend([0, 1, 0, 1]);
    bind.extend(i16::try_from(parameters.len()).expect("a dozen").to_be_bytes());
    for parameter in parameters {
        bind.extend(length_of(parameter.len()));
        bind.extend_from_slice(parameter);
    }
    bind.extend([0, 1, 0, 1]);
    [
        message(b'B', &bind),
        message(b'E', &[0, 0, 0, 0, 0]),
        message(b'S', &[]),
    ]
    .concat()
}

fn array<T: AsRef<[u8]>>(oid: i32, items: impl ExactSizeIterator<Item = T>) -> Vec<u8> {
    let mut array = Vec::new();
    // One dimension, no nulls, counted from 1.
    array.extend([1i32, 0, oid].map(i32::to_be_bytes).concat());
    array.extend(length_of(items.len()));
    array.extend(1i32.to_be_bytes());
    for item in items {
        array.extend(length_of(item.as_ref().len()));
        array.extend_from_slice(item.as_ref());
    }
    array
}

fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(length_of(content.len() + 4));
    message.extend_from_slice(content);
    message
}

fn length_of(length: usize) -> Vec<u8> {
    i32::try_from(length)
        .expect("messages are far below 2 GiB")
        .to_be_bytes()
        .to_vec()
}

fn push_text(message: &mut Vec<u8>, text: &str) {
    message.extend_from_slice(text.as_bytes());
    message.push(0);
}
