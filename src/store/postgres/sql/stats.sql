-- One snapshot: the totals with the state of the log and of the outbox in the first row, then the largest topics. Where there are more
-- than a list has, they are those of largest_topics; before these are known, the first by name. Its cost does not grow with the number
-- of topics: the counters of each are looked up by key.
-- $1 how many topics at most.
with t as materialized (
    select coalesce(sum(received), 0)::bigint as received, coalesce(sum(unique_processed), 0)::bigint as unique_processed,
           coalesce(sum(duplicate_dropped), 0)::bigint as duplicate_dropped, coalesce(sum(conflicts), 0)::bigint as conflicts,
           coalesce(sum(pruned), 0)::bigint as pruned, coalesce(sum(topics), 0)::bigint as topics
    from eventsieve.totals
), chosen as materialized (
    (
        select l.topic
        from eventsieve.largest_topics l
        where (select topics from t) > $1
        limit $1
    )
    union all
    (
        select n.topic
        from eventsieve.topics n
        where (select topics from t) <= $1 or not exists (select from eventsieve.largest_topics)
        order by n.topic
        limit $1
    )
), s as (
    select e.last_stable, e.committed_below, e.visibility_lag_seconds from eventsieve.log_end e
), o as (
    select count(*) as outbox_batches,
           case when count(*) > 0 then greatest(extract(epoch from clock_timestamp() - min(received_at)), 0.001)
                else 0 end::float8 as outbox_oldest_seconds
    from eventsieve.batches
    where published_at is null
)
(
    select null::text as topic, t.received, t.unique_processed, t.duplicate_dropped, t.conflicts, t.pruned, t.topics,
           (select outbox_batches from o) as outbox_batches,
           (select outbox_oldest_seconds from o) as outbox_oldest_seconds,
           (select count(*) from eventsieve.parked) as dead_letters,
           (select coalesce(sum(held_back), 0)::bigint from eventsieve.partitions) as held_back,
           (select last_stable from s) as last_stable,
           (select committed_below from s) as committed_below,
           (select visibility_lag_seconds from s) as visibility_lag_seconds
    from t
)
union all
(
    select c.topic, null, n.unique_processed, null, null, null, null, null, null, null, null, null, null, null
    from chosen c
        cross join lateral (
            select sum(k.unique_processed)::bigint as unique_processed
            from eventsieve.topic_counts k
            where k.topic = c.topic
            offset 0
        ) n
    where n.unique_processed is not null
    order by n.unique_processed desc, c.topic
)
