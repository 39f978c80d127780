-- Dead-letters events. $1 batches, $2 positions, $3 reasons. An event that is being pruned is waited for, and then is gone; an
-- event that is dead-lettered here is not pruned before this statement has ended.
with durable as materialized (
    -- The commit of this statement waits for the disk, whatever the session's setting is: the mark that follows relies on it. A
    -- stronger setting of the server is kept. The setting counts when the transaction commits, and ends with it. A "with" that
    -- only reads runs only if the statement uses it.
    select set_config('synchronous_commit', case reset_val when 'off' then 'on' else reset_val end, true)
    from pg_settings
    where name = 'synchronous_commit'
)
insert into parked (batch, position, topic, event_id, parked_at, reason)
select e.batch, e.position, e.topic, e.event_id, now(), r.reason
from durable, unnest($1::bigint[], $2::int[], $3::text[]) as r(batch, position, reason)
    cross join lateral (
        select e.batch, e.position, e.topic, e.event_id
        from events e
        where e.batch = r.batch and e.position = r.position
        offset 0
        for key share
    ) e
on conflict (batch, position) do update set reason = excluded.reason
