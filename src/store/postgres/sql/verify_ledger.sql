-- Batches with events but without a row in the commit ledger: one sentence each, at most 20. A row that is published is kept
-- for an hour at least, so the row of a younger batch must be there.
select format('batch %s has events but is not in the commit ledger', e.batch)
from (select distinct batch from eventsieve.events where received_at > now() - interval '30 minutes') e
    left join eventsieve.batches b using (batch)
where b.batch is null
order by e.batch
limit 20
