-- Keeps a key: ?1 its id, then its other columns but the last use; ?13 its version.
insert into keys
    (id, name, scopes, topics, events_per_second, bytes_per_second, hash, previous_hash, previous_until, created_at, expires_at, revoked_at,
     version)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
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
