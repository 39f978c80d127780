-- The partitions, the oldest first.
select p.first_batch, coalesce((select min(n.first_batch) from partitions n where n.first_batch > p.first_batch), 9223372036854775807),
       p.ended_at, p.bytes, p.decision, p.held_back, p.archived_as
from partitions p
order by p.first_batch
