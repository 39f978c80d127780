-- The events that one step of pruning examines. ?1, ?2 batch and position behind which it begins; ?3 events received before this
-- time are old; ?4 how many; ?5 events received after this time were received when the clock was wrong. A dead letter is not published, though its batch is.
select e.rowid, e.topic, e.batch, e.position,
       e.received_at < ?3 as is_old,
       e.received_at > ?5 as is_future,
       exists (select 1 from batches b where b.batch = e.batch and b.published_at is null)
           or exists (select 1 from parked p where p.batch = e.batch and p.position = e.position) as is_unpublished
from events e indexed by events_log_idx
where (e.batch, e.position) > (?1, ?2)
order by e.batch, e.position
limit ?4
