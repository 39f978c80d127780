-- What was archived, the oldest first.
select a.first_batch, a.manifest, a.events from eventsieve.archives a order by a.first_batch
