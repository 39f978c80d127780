-- One identity, with its event if that is still there. $1 key.
select i.batch as first_batch, i.position as first_position, i.received_at as first_received, e.topic, e.event_id, e.occurred_at, e.source,
       e.payload::text as payload, e.headers::text as headers, e.received_at, e.batch, e.position
from eventsieve.identities i
    left join eventsieve.events e on e.batch = i.batch and e.position = i.position
where i.key = $1
