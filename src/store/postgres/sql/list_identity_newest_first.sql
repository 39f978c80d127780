-- Lists one identity, newest first, by its key.
-- $1 topic, $2 event_id, $3 source, $4 since, $5 until; $6, $7 batch and position before which the list begins;
-- $8 only batches below this number; $9 limit; $10 offset; $11 key. A page of no events is one row whose event is null.
select s.last_stable, p.*
from (select e.last_stable from eventsieve.log_end e) s
    left join lateral (
        select e.topic, e.event_id, e.occurred_at, e.source, e.payload::text as payload, e.headers::text as headers,
               e.received_at, e.batch, e.position
        from eventsieve.identities i
            join eventsieve.events e on e.batch = i.batch and e.position = i.position
        where i.key = $11
          and e.topic = $1
          and e.event_id = $2
          and ($3::text is null or e.source = $3)
          and ($4::timestamptz is null or e.occurred_at >= $4)
          and ($5::timestamptz is null or e.occurred_at < $5)
          and (e.batch, e.position) < ($6::bigint, $7::int)
          and e.batch <= $6::bigint
          and e.batch < $8::bigint
        order by e.batch desc, e.position desc
        limit $9::bigint offset $10::bigint
    ) p on true
order by p.batch desc, p.position desc
