-- One snapshot: the totals with the state of the log and of the outbox in the first row, then the largest topics.
-- $1 how many topics at most.
with t as materialized (
    select topic, sum(received)::bigint as received, sum(unique_processed)::bigint as unique_processed,
           sum(duplicate_dropped)::bigint as duplicate_dropped, sum(conflicts)::bigint as conflicts,
           sum(pruned)::bigint as pruned
    from eventsieve.topic_counts
    group by topic
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
    select null::text as topic, coalesce(sum(t.received), 0)::bigint as received,
           coalesce(sum(t.unique_processed), 0)::bigint as unique_processed,
           coalesce(sum(t.duplicate_dropped), 0)::bigint as duplicate_dropped,
           coalesce(sum(t.conflicts), 0)::bigint as conflicts, coalesce(sum(t.pruned), 0)::bigint as pruned,
           count(t.topic) as topics,
           (select outbox_batches from o) as outbox_batches,
           (select outbox_oldest_seconds from o) as outbox_oldest_seconds,
           (select count(*) from eventsieve.parked) as dead_letters,
           (select last_stable from s) as last_stable,
           (select committed_below from s) as committed_below,
           (select visibility_lag_seconds from s) as visibility_lag_seconds
    from t
)
union all
(
    select topic, received, unique_processed, duplicate_dropped, conflicts, pruned, null, null, null, null, null, null, null
    from t
    order by unique_processed desc, topic
    limit $1
)
