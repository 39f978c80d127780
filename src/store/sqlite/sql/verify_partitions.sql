-- Events that lie before the first partition: one sentence.
select format('batch %d is in no partition', min(e.batch))
from events e
where e.batch < coalesce((select min(p.first_batch) from partitions p), 9223372036854775807)
having count(*) > 0
