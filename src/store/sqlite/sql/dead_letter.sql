-- Dead-letters an event. ?1 batch, ?2 position, ?3 now, ?4 reason.
insert into parked (batch, position, topic, event_id, parked_at, reason)
select batch, position, topic, event_id, ?3, ?4
from events indexed by sqlite_autoindex_events_1
where batch = ?1 and position = ?2
on conflict (batch, position) do update set reason = excluded.reason
