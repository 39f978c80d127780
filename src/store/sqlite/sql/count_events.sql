-- Adds to the counters of a topic, and returns whether it is new. ?1 topic, ?2 received, ?3 unique, ?4 duplicates, ?5 conflicts, ?6 when events of it were stored; null if
-- none were.
insert into topic_counts as c
    (topic, received, unique_processed, duplicate_dropped, conflicts, first_received_at, last_received_at)
values (?1, ?2, ?3, ?4, ?5, ?6, ?6)
on conflict (topic) do update set
    received          = c.received + excluded.received,
    unique_processed  = c.unique_processed + excluded.unique_processed,
    duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
    conflicts         = c.conflicts + excluded.conflicts,
    first_received_at = coalesce(c.first_received_at, excluded.first_received_at),
    last_received_at  = max(coalesce(c.last_received_at, excluded.last_received_at), coalesce(excluded.last_received_at, c.last_received_at))
returning received = ?2
