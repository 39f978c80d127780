-- Dead letters without an event: one sentence each, at most 20.
select format('event %s of topic %s is a dead letter but is not in the log', p.event_id, p.topic)
from eventsieve.parked p
    left join eventsieve.events e on (e.batch, e.position, e.topic, e.event_id) = (p.batch, p.position, p.topic, p.event_id)
where e.batch is null
order by p.batch, p.position
limit 20
