-- Lists dead letters in log order. $1, $2 batch and position behind which the list begins; $3 limit. Each event is looked up
-- by its place.
select p.parked_at, p.reason, e.*
from eventsieve.parked p
    cross join lateral (
        select e.topic, e.event_id, e.occurred_at, e.source, e.payload::text as payload, e.headers::text as headers,
               e.received_at, e.batch, e.position
        from eventsieve.events e
        where e.batch = p.batch and e.position = p.position
        offset 0
    ) e
where (p.batch, p.position) > ($1::bigint, $2::int)
order by p.batch, p.position
limit $3::bigint
