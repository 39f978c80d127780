-- The rows of the commit ledger that one step of pruning examines. ?1 the batch behind which it begins; ?2 rows received after
-- this time are young; ?3 how many; ?4 rows received after this time were received when the clock was wrong.
select batch,
       received_at > ?2 and received_at <= ?4 as is_young,
       coalesce(published_at <= ?2, false) as is_done
from batches
where batch > ?1
order by batch
limit ?3
