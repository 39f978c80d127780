-- Adds to the totals. ?1 received, ?2 unique, ?3 duplicates, ?4 conflicts, ?5 new topics.
update totals set
    received          = received + ?1,
    unique_processed  = unique_processed + ?2,
    duplicate_dropped = duplicate_dropped + ?3,
    conflicts         = conflicts + ?4,
    topics            = topics + ?5
