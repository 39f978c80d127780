-- The log: every event once, the ledger of flushes, exact counters, and where the log stands. The tables are those of
-- PostgreSQL, except where a single writer makes it simpler; times are microseconds since 1970 in UTC.

-- One row. A batch's number is last_batch + 1, in the transaction that stores it: numbers rise in the order of commits, and
-- never come again, also when the newest events were pruned. pruned_to_*: the newest event that was pruned; whoever reads on from
-- a cursor before it has missed something.
create table log (
    only_row           integer not null primary key check (only_row = 1),
    last_batch         integer not null,
    pruned_to_batch    integer not null,
    pruned_to_position integer not null
) strict;
insert into log values (1, 0, 0, 0);

-- Numbers that no batch of this log has: at each start of a service the numbering begins anew above all that may have been given
-- out, because the file may be an older copy. A cursor with such a number was given out by a copy whose newest batches are lost,
-- or by an older log.
create table gaps (
    after_batch  integer not null primary key,
    before_batch integer not null,
    check (after_batch < before_batch)
) strict;

-- Text is compared byte for byte (the default, BINARY). The payload and the headers are text: they come back as they were sent.
create table events (
    topic       text    not null,
    event_id    text    not null,
    occurred_at integer not null,
    source      text    not null,
    payload     text    not null,
    headers     text,
    received_at integer not null,
    batch       integer not null,
    position    integer not null,
    primary key (topic, event_id)
) strict;
-- The log's order, of everything and of one topic.
create index events_log_idx on events (batch, position);
create index events_topic_log_idx on events (topic, batch, position);

-- The ledger: a row for each flush. The unique flush_id proves to a retry that its first attempt committed. The same row
-- is the outbox: unpublished until the sink has its events; owner and lease_until say who is on it.
create table batches (
    batch        integer not null primary key,
    flush_id     blob    not null unique,
    received_at  integer not null,
    owner        blob,
    lease_until  integer,
    published_at integer
) strict;
-- What is to be claimed, in the order in which it is claimed.
create index batches_unpublished_idx on batches (batch) where published_at is null;

-- Exact counters, changed in the transaction that stores the events. One row for each topic: there is one writer.
create table topic_counts (
    topic             text    not null primary key,
    received          integer not null,
    unique_processed  integer not null,
    duplicate_dropped integer not null,
    conflicts         integer not null,
    pruned            integer not null default 0,
    check (received = unique_processed + duplicate_dropped)
) strict, without rowid;

-- Dead letters: events that the sink refuses for themselves (it would refuse them again tomorrow, and hold up what comes behind
-- them). The event stays in the log; what is kept here is that the sink is owed it, since when, and what was said. Their batch
-- counts as published, so nothing else in it waits. A row goes when the sink has taken the event after all.
--
-- The place is the key, for that is the order in which they are listed and sent again. The identity stands beside it, so that
-- an event is found by its own key, and a row that has outlived its event is seen for what it is.
create table parked (
    batch     integer not null,
    position  integer not null,
    topic     text    not null,
    event_id  text    not null,
    parked_at integer not null,
    reason    text    not null,
    primary key (batch, position)
) strict, without rowid;
