-- Adds to the counters of a topic. ?1 topic, ?2 received, ?3 unique, ?4 duplicates, ?5 conflicts.
insert into topic_counts as c (topic, received, unique_processed, duplicate_dropped, conflicts)
values (?1, ?2, ?3, ?4, ?5)
on conflict (topic) do update set
    received          = c.received + excluded.received,
    unique_processed  = c.unique_processed + excluded.unique_processed,
    duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
    conflicts         = c.conflicts + excluded.conflicts
