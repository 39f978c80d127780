-- Conflicts behind a place, in log order. ?1, ?2 batch and position.
select batch, position, topic, event_id, first_batch, first_position, occurred_at, received_at, source, payload
from conflicts
where (batch, position) > (?1, ?2)
order by batch, position
