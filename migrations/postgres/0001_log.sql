-- The log: every event once, the ledger of flushes, exact counters, and where the log stands.

-- One row. A batch's number is xid_offset + the id of the transaction that stored it, so that numbers go on rising when
-- a dump is restored into a cluster whose transaction ids start low. high_water is the newest batch that prune removed:
-- its events are gone, its number must never come again.
create table log (
    only_row   boolean not null default true,
    xid_offset bigint  not null default 0,
    high_water bigint  not null default 0,
    constraint log_pkey primary key (only_row),
    constraint log_only_row_check check (only_row)
);
insert into log default values;

-- Identity is compared byte for byte, whatever the database's locale: collate "C". A change of glibc's or ICU's sort
-- order can then never corrupt the unique key. The payload is json, not jsonb: it comes back as it was sent.
create table events (
    topic       text collate "C" not null,
    event_id    text collate "C" not null,
    occurred_at timestamptz      not null,
    source      text             not null,
    payload     json             not null,
    received_at timestamptz      not null,
    batch       bigint           not null,
    position    integer          not null,
    constraint events_pkey primary key (topic, event_id)
);
-- The log's order, of everything and of one topic.
create index events_log_idx on events (batch, position);
create index events_topic_log_idx on events (topic, batch, position);

-- The ledger: a row for each flush. The unique flush_id proves to a retry that its first attempt committed. The same row
-- is the outbox: unpublished until the fan-out has its events; owner and lease_until say who is on it.
create table batches (
    batch        bigint      not null,
    flush_id     uuid        not null,
    received_at  timestamptz not null,
    owner        uuid,
    lease_until  timestamptz,
    published_at timestamptz,
    constraint batches_pkey primary key (batch),
    constraint batches_flush_id_key unique (flush_id)
);
create index batches_unpublished_idx on batches (batch) where published_at is null;

-- Exact counters, changed in the transaction that stores the events. Several shards of a topic, so that writers seldom
-- wait for each other's row; half-filled pages, so that an update stays on its page (HOT).
create table topic_counts (
    topic             text collate "C" not null,
    shard             integer          not null,
    received          bigint           not null,
    unique_processed  bigint           not null,
    duplicate_dropped bigint           not null,
    conflicts         bigint           not null,
    pruned            bigint           not null default 0,
    constraint topic_counts_pkey primary key (topic, shard),
    constraint topic_counts_sum_check check (received = unique_processed + duplicate_dropped)
) with (fillfactor = 50);
