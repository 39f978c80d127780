-- Lists dead letters in log order. ?1, ?2 batch and position behind which the list begins; ?3 limit. Each event is looked up by
-- its place.
select e.topic, e.event_id, e.occurred_at, e.source, e.payload, e.headers, e.received_at, e.batch, e.position, p.parked_at, p.reason
from parked p
    cross join events e indexed by sqlite_autoindex_events_1
        on e.batch = p.batch and e.position = p.position
where (p.batch, p.position) > (?1, ?2)
order by p.batch, p.position
limit ?3
