-- What is not published. Each row of it is in a small index of its own.
select b.outbox_batches, b.outbox_oldest_seconds, (select count(*) from parked) as dead_letters
from (
    select count(*) as outbox_batches,
           coalesce(greatest(extract(epoch from clock_timestamp() - min(received_at)), 0), 0)::float8
               as outbox_oldest_seconds
    from batches
    where published_at is null
) b
