-- The counters of some topics together, in the first row, then the largest of them.
-- $1 how many topics at most; $2, $3 ranges of names, from here to below there or null; $4 patterns.
with c as materialized (
    select k.topic, sum(k.received)::bigint as received, sum(k.unique_processed)::bigint as unique_processed,
           sum(k.duplicate_dropped)::bigint as duplicate_dropped, sum(k.conflicts)::bigint as conflicts,
           sum(k.pruned)::bigint as pruned
    from unnest($2::text[], $3::text[]) r (low, below)
        cross join lateral (
            select n.*
            from eventsieve.topic_counts n
            where n.topic >= r.low and (r.below is null or n.topic < r.below)
            offset 0
        ) k
    where k.topic like any ($4::text[])
    group by k.topic
)
(
    select null::text as topic, coalesce(sum(c.received), 0)::bigint as received,
           coalesce(sum(c.unique_processed), 0)::bigint as unique_processed,
           coalesce(sum(c.duplicate_dropped), 0)::bigint as duplicate_dropped,
           coalesce(sum(c.conflicts), 0)::bigint as conflicts, coalesce(sum(c.pruned), 0)::bigint as pruned,
           count(*) as topics
    from c
)
union all
(
    select c.topic, null, c.unique_processed, null, null, null, null
    from c
    order by c.unique_processed desc, c.topic
    limit $1::bigint
)
