-- The totals of a recount.
select coalesce(sum(received), 0), coalesce(sum(unique_processed), 0), coalesce(sum(duplicate_dropped), 0),
       coalesce(sum(conflicts), 0), coalesce(sum(pruned), 0),
       (select count(*) from events) as rows,
       (select count(*) from batches where published_at is null) as outbox_batches
from topic_counts
