-- The log: every identity once, every event once, the ledger of flushes, exact counters, and where the log stands. The tables are those
-- of PostgreSQL, except where a single writer makes it simpler; times are microseconds since 1970 in UTC.

-- One row. A batch's number is last_batch + 1, in the transaction that stores it: numbers rise in the order of commits, and
-- never come again, also when the newest events have expired. pruned_to_*: the newest event that has expired; whoever reads on from
-- a cursor before it has missed something. identities_forgotten: how many identities have expired.
create table log (
    only_row             integer not null primary key check (only_row = 1),
    last_batch           integer not null,
    pruned_to_batch      integer not null,
    pruned_to_position   integer not null,
    identities_forgotten integer not null
) strict;
insert into log values (1, 0, 0, 0, 0);

-- Numbers that no batch of this log has: at each start of a service the numbering begins anew above all that may have been given
-- out, because the file may be an older copy. A cursor with such a number was given out by a copy whose newest batches are lost,
-- or by an older log.
create table gaps (
    after_batch  integer not null primary key,
    before_batch integer not null,
    check (after_batch < before_batch)
) strict;

-- Who has been here: it outlives the event, so that an event that comes again is a duplicate also when its first copy has expired.
-- key: the first 16 bytes of SHA-256 of topic, 0x00 and event_id. digest: the first 8 bytes of SHA-256 of the payload's canonical
-- JSON value, made by the service.
create table identities (
    key         blob    not null primary key,
    batch       integer not null,
    position    integer not null,
    received_at integer not null,
    digest      integer not null
) strict, without rowid;

-- The events, in the order of the log. Text is compared byte for byte (the default, BINARY). The payload and the headers are text: they
-- come back as they were sent. With a rowid: without one, a payload of more than a kilobyte would take a page of its own.
create table events (
    batch       integer not null,
    position    integer not null,
    topic       text    not null,
    event_id    text    not null,
    occurred_at integer not null,
    source      text    not null,
    payload     text    not null,
    headers     text,
    received_at integer not null,
    primary key (batch, position)
) strict;
create index events_topic_log_idx on events (topic, batch, position);

-- The partitions: batches from first_batch on, up to the next partition. The last one takes what is stored now; the others have ended.
-- They are only a division of the log: dropping a table takes as long as deleting its rows, and cannot be done in steps. bytes: the
-- size of the rows, by their texts. decision, held_back, archived_as: as in PostgreSQL.
create table partitions (
    first_batch integer not null primary key,
    begun_at    integer not null,
    ended_at    integer,
    bytes       integer not null default 0,
    decision    text    not null default '',
    held_back   integer not null default 0,
    archived_as text
) strict;

insert into partitions (first_batch, begun_at) values (0, unixepoch() * 1000000);

-- What was archived, also when its partition is gone.
create table archives (
    first_batch integer not null primary key,
    manifest    text    not null,
    events      integer not null,
    archived_at integer not null
) strict;

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
-- first_/last_received_at: of stored events. pruned: how many have expired; pruned_to_*: the newest of them.
create table topic_counts (
    topic              text    not null primary key,
    received           integer not null,
    unique_processed   integer not null,
    duplicate_dropped  integer not null,
    conflicts          integer not null,
    pruned             integer not null default 0,
    first_received_at  integer ,
    last_received_at   integer ,
    pruned_to_batch    integer not null default 0,
    pruned_to_position integer not null default 0,
    check (received = unique_processed + duplicate_dropped)
) strict, without rowid;

-- The largest topics first, so that a list of them reads no more than it shows.
create index topic_counts_largest_idx on topic_counts (unique_processed desc, topic);

-- One row: the counters of all topics together, those of forgotten ones included, and how many topics there are.
create table totals (
    only_row          integer not null primary key check (only_row = 1),
    received          integer not null,
    unique_processed  integer not null,
    duplicate_dropped integer not null,
    conflicts         integer not null,
    pruned            integer not null,
    topics            integer not null
) strict;
insert into totals values (1, 0, 0, 0, 0, 0, 0);

-- One row: the counters of the topics of which nothing was left, neither event nor identity. pruned_to_*: the newest event of them.
create table forgotten_topics (
    only_row           integer not null primary key check (only_row = 1),
    received           integer not null,
    unique_processed   integer not null,
    duplicate_dropped  integer not null,
    conflicts          integer not null,
    pruned             integer not null,
    pruned_to_batch    integer not null,
    pruned_to_position integer not null
) strict;
insert into forgotten_topics values (1, 0, 0, 0, 0, 0, 0, 0);

-- Conflicts: what was sent under an identity that has another value. batch, position: the place that it would have had. A payload
-- that is too large is left out. All are counted; of those that come too fast, only so many are kept.
create table conflicts (
    batch          integer not null,
    position       integer not null,
    topic          text    not null,
    event_id       text    not null,
    first_batch    integer not null,
    first_position integer not null,
    occurred_at    integer not null,
    received_at    integer not null,
    source         text    not null,
    payload        text,
    primary key (batch, position)
) strict, without rowid;
create index conflicts_topic_idx on conflicts (topic, batch, position);

-- Dead letters: events that the sink refuses for themselves (it would refuse them again tomorrow, and hold up what comes behind
-- them). The event stays in the log; what is kept here is that the sink is owed it, since when, and what was said. Their batch
-- counts as published, so nothing else in it waits. A row goes when the sink has taken the event after all.
create table parked (
    batch     integer not null,
    position  integer not null,
    topic     text    not null,
    event_id  text    not null,
    parked_at integer not null,
    reason    text    not null,
    primary key (batch, position)
) strict, without rowid;
