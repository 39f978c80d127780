-- The events that one step of expiry examines. ?1, ?2 batch and position behind which it begins; ?3 batches below this one; ?4 how many.
-- A dead letter is not published, though its batch is.
select e.batch, e.position, e.topic, e.received_at,
       length(cast(e.payload as blob)) + coalesce(length(cast(e.headers as blob)), 0) + 2 * length(cast(e.topic as blob))
           + length(cast(e.event_id as blob)) + length(cast(e.source as blob)) + 64 as bytes,
       exists (select 1 from batches b where b.batch = e.batch and b.published_at is null)
           or exists (select 1 from parked p where p.batch = e.batch and p.position = e.position) as is_unpublished
from events e indexed by sqlite_autoindex_events_1
where (e.batch, e.position) > (?1, ?2) and e.batch < ?3
order by e.batch, e.position
limit ?4
