-- The counters of one topic. $1 topic.
select coalesce(sum(received), 0)::bigint as received,
       coalesce(sum(unique_processed), 0)::bigint as unique_processed,
       coalesce(sum(duplicate_dropped), 0)::bigint as duplicate_dropped,
       coalesce(sum(conflicts), 0)::bigint as conflicts,
       coalesce(sum(pruned), 0)::bigint as pruned
from eventsieve.topic_counts
where topic = $1
