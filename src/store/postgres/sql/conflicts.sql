-- Conflicts behind a place, in log order, up to the last stable position. $1 topic or null; $2, $3 batch and position; $4 limit;
-- $5 patterns of topics or null.
-- No conflict is one row whose topic is null.
select s.last_stable, c.*
from (select e.first_unstable, e.last_stable from eventsieve.log_end e) s
    left join lateral (
        select c.batch, c.position, c.topic, c.event_id, c.first_batch, c.first_position, c.occurred_at, c.received_at, c.source,
               c.payload::text as payload
        from eventsieve.conflicts c
        where ($1::text is null or c.topic = $1)
          and ($5::text[] is null or c.topic like any ($5))
          and (c.batch, c.position) > ($2::bigint, $3::int)
          and c.batch < s.first_unstable
        order by c.batch, c.position
        limit $4::bigint
    ) c on true
order by c.batch, c.position
