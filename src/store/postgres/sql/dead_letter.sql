-- Dead-letters events. $1 batches, $2 positions, $3 reasons. An event that is being pruned is waited for, and then is gone; an
-- event that is dead-lettered here is not pruned before this statement has ended.
with durable as materialized (
    -- The mark that follows relies on this commit. A "with" that only reads runs only if the statement uses it.
    select eventsieve.commit_durably()
)
insert into eventsieve.parked (batch, position, topic, event_id, parked_at, reason)
select e.batch, e.position, e.topic, e.event_id, now(), r.reason
from durable, unnest($1::bigint[], $2::int[], $3::text[]) as r(batch, position, reason)
    cross join lateral (
        select e.batch, e.position, e.topic, e.event_id
        from eventsieve.events e
        where e.batch = r.batch and e.position = r.position
        offset 0
        for key share
    ) e
on conflict (batch, position, shard) do update set reason = excluded.reason
