-- Unpublished batches without events: one sentence each, at most 20.
select format('batch %s is in the outbox but has no events', b.batch)
from eventsieve.batches b
where b.published_at is null and not exists (select from eventsieve.events e where e.batch = b.batch)
order by b.batch
limit 20
