-- The totals of a recount.
select received, unique_processed, duplicate_dropped, conflicts, pruned,
       (select count(*) from events) as rows,
       (select count(*) from batches where published_at is null) as outbox_batches,
       (select count(*) from identities) as identities,
       (select identities_forgotten from log) as identities_forgotten,
       (select count(*) from partitions) as partitions
from totals
