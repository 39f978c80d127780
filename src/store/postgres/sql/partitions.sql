-- The partitions, the oldest first, with what their tables and indexes take on disk.
select p.first_batch, p.before_batch, p.ended_at,
       p.ended_at is null or (select e.first_unstable < p.before_batch from eventsieve.log_end e) as is_open,
       p.decision, p.held_back, p.archived_as,
       coalesce(pg_total_relation_size(to_regclass(format('eventsieve.%I', p.table_name))), 0) as bytes
from eventsieve.partitions p
order by p.first_batch
