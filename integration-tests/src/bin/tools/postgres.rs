//! PostgreSQL's protocol (version 3.0: the chapter "Frontend/Backend Protocol" of its manual) as the load side speaks it: one
//! prepared statement, whose messages are built before the clock starts. No client could be faster.

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
    /// One common table expression, which stores and counts the rows, and reads no first copies.
    Plain,
}

impl Statement {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Statement::GroupCommit | Statement::GroupCommitRow => "group commit",
            Statement::Plain => "plain statement",
        }
    }

    /// Its SQL. All take the same parameters.
    pub fn sql(self) -> &'static str {
        match self {
            Statement::GroupCommit => {
                "select * from eventsieve.append($1, $2, null, null, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
            }
            Statement::GroupCommitRow => GROUP_COMMIT_ROW,
            Statement::Plain => PLAIN,
        }
    }
}

/// It is given arrays, and mentions those that it does not use, because PostgreSQL must know the type of each.
const GROUP_COMMIT_ROW: &str = "
    select * from eventsieve.append_row($1, $2, null, null, ($3::text[])[1], ($4::text[])[1], ($5::timestamptz[])[1],
        ($6::text[])[1], ($7::text[])[1], ($9::int[])[1])
    where $8::int[] is not null and $10::text[] is not null and $11::bigint[] is not null and $12::bigint[] is not null";

const PLAIN: &str = "
with flush as (
    insert into eventsieve.batches (batch, flush_id, received_at)
    select xid_offset + pg_current_xact_id()::text::bigint, $1, now() from eventsieve.log
    returning batch, received_at
), stored as (
    insert into eventsieve.events (topic, event_id, occurred_at, source, payload, received_at, batch, position)
    select r.topic, r.event_id, r.occurred_at, r.source, r.payload::json, flush.received_at, flush.batch, r.position
    from flush, unnest($3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[], $8::int[])
        as r(topic, event_id, occurred_at, source, payload, position)
    on conflict (topic, event_id) do nothing
    returning topic, position
), counted as (
    insert into eventsieve.topic_counts as c (topic, lane, received, unique_processed, duplicate_dropped, conflicts)
    select t.topic, $2, t.received, coalesce(s.stored, 0), t.received - coalesce(s.stored, 0), 0
    from unnest($10::text[], $11::bigint[], $12::bigint[]) as t(topic, received, rows)
        left join (select topic, count(*) as stored from stored group by topic) s on s.topic = t.topic
    order by t.topic
    on conflict (topic, lane) do update set
        received = c.received + excluded.received,
        unique_processed = c.unique_processed + excluded.unique_processed,
        duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped
)
select flush.batch, flush.received_at, (select array_agg(position) from stored) from flush where $9::int[] is not null";

/// One row, and nothing else.
pub const INSERT: &str =
    "insert into eventsieve.events (topic, event_id, occurred_at, source, payload, received_at, batch, position)
    values ($1, $2, $3, $4, $5, now(), $6, 0) on conflict (topic, event_id) do nothing";

/// One row, and the exact counter of its topic, as one statement and one transaction.
pub const INSERT_AND_COUNT: &str = "with stored as (
        insert into eventsieve.events (topic, event_id, occurred_at, source, payload, received_at, batch, position)
        values ($1, $2, $3, $4, $5, now(), $6, 0) on conflict (topic, event_id) do nothing returning 1
    )
    insert into eventsieve.topic_counts as c (topic, lane, received, unique_processed, duplicate_dropped, conflicts)
    select $1, 0, 1, count(*), 1 - count(*), 0 from stored
    on conflict (topic, lane) do update set
        received = c.received + 1,
        unique_processed = c.unique_processed + excluded.unique_processed,
        duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped";

const TEXT: i32 = 25;
const TIMESTAMPTZ: i32 = 1184;
const INT4: i32 = 23;
const INT8: i32 = 20;

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
    ])
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
