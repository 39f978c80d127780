-- Conflicts of a topic behind a place, in log order. ?1, ?2 batch and position; ?3 limit; ?4 topic.
select batch, position, topic, event_id, first_batch, first_position, occurred_at, received_at, source, payload
from conflicts indexed by conflicts_topic_idx
where topic = ?4 and (batch, position) > (?1, ?2)
order by batch, position
limit ?3
