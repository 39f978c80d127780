-- The keys of clients. Times are microseconds since 1970 in UTC.

-- One row. version: that of the newest change of a key.
create table access (
    only_row integer not null primary key check (only_row = 1),
    version  integer not null
) strict;
insert into access values (1, 0);

-- A key, of which only the hash of its secret is kept (SHA-256). previous_hash: the one before the last rotation, which works until
-- previous_until. topics: patterns with blanks between them; null: every topic. Times of use are noted by the minute, and are no change.
create table keys (
    id                text    not null primary key,
    name              text    not null,
    scopes            text    not null,
    topics            text,
    events_per_second integer,
    bytes_per_second  integer,
    hash              blob    not null,
    previous_hash     blob,
    previous_until    integer,
    created_at        integer not null,
    expires_at        integer,
    revoked_at        integer,
    last_used_at      integer,
    version           integer not null
) strict, without rowid;
create index keys_version_idx on keys (version);
