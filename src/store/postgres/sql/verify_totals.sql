-- The totals of a recount.
select (select count(*) from eventsieve.events) as rows,
       (select count(*) from eventsieve.identities) as identities,
       (select identities_forgotten from eventsieve.log) as identities_forgotten,
       (select count(*) from eventsieve.partitions) as partitions,
       coalesce(sum(received), 0)::bigint as received,
       coalesce(sum(unique_processed), 0)::bigint as unique_processed,
       coalesce(sum(duplicate_dropped), 0)::bigint as duplicate_dropped,
       coalesce(sum(conflicts), 0)::bigint as conflicts,
       coalesce(sum(pruned), 0)::bigint as pruned,
       (select count(*) from eventsieve.batches where published_at is null) as outbox_batches
from eventsieve.totals
