-- The keys of clients.

-- One row. version: that of the newest change of a key. Whoever changes a key locks it, so changes become visible in the order of
-- their versions.
create table eventsieve.access (
    only_row boolean not null default true,
    version  bigint  not null,
    constraint access_pkey primary key (only_row),
    constraint access_only_row_check check (only_row)
);
insert into eventsieve.access (version) values (0);

-- A key, of which only the hash of its secret is kept (SHA-256). previous_hash: the one before the last rotation, which works until
-- previous_until. topics: patterns with blanks between them; null: every topic. Times of use are noted by the minute, and are no change.
create table eventsieve.keys (
    id                text collate "C" not null,
    name              text        not null,
    scopes            text        not null,
    topics            text,
    events_per_second bigint,
    bytes_per_second  bigint,
    hash              bytea       not null,
    previous_hash     bytea,
    previous_until    timestamptz,
    created_at        timestamptz not null,
    expires_at        timestamptz,
    revoked_at        timestamptz,
    last_used_at      timestamptz,
    version           bigint      not null,
    constraint keys_pkey primary key (id)
);
create index keys_version_idx on eventsieve.keys (version);
