-- Keeps a key: $1 its id; $2 to $12 its other columns but the last use; $13 the version that it was read with, 0 for a new one; $14 how many
-- keys there may be. No row: it has been changed since, or there are too many. Keys that were revoked a day ago go.
with v as (
    update eventsieve.access set version = version + 1 returning version
), gone as (
    delete from eventsieve.keys k where $13::bigint = 0 and k.revoked_at < now() - interval '1 day'
)
insert into eventsieve.keys as k
    (id, name, scopes, topics, events_per_second, bytes_per_second, hash, previous_hash, previous_until, created_at, expires_at, revoked_at,
     version)
select $1::text, $2::text, $3::text, $4::text, $5::bigint, $6::bigint, $7::bytea, $8::bytea, $9::timestamptz, $10::timestamptz,
       $11::timestamptz, $12::timestamptz, v.version
from v
where case when $13::bigint = 0 then (select count(*) from eventsieve.keys k
                                         where k.revoked_at is null or k.revoked_at >= now() - interval '1 day') < $14::bigint
           else exists (select from eventsieve.keys e where e.id = $1::text) end
on conflict (id) do update set
    name              = excluded.name,
    scopes            = excluded.scopes,
    topics            = excluded.topics,
    events_per_second = excluded.events_per_second,
    bytes_per_second  = excluded.bytes_per_second,
    hash              = excluded.hash,
    previous_hash     = excluded.previous_hash,
    previous_until    = excluded.previous_until,
    expires_at        = excluded.expires_at,
    revoked_at        = excluded.revoked_at,
    version           = excluded.version
where k.version = $13::bigint
returning k.version
