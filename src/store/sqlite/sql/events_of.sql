-- The events of a batch. :after_batch, :after_position the place behind which they begin.
select topic, event_id, occurred_at, source, payload, headers, received_at, batch, position
from events indexed by sqlite_autoindex_events_1
where batch = :batch and (batch, position) > (:after_batch, :after_position)
order by batch, position
