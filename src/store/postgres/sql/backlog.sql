-- What is not published. Each row of it is in a small index of its own. Its age is never 0, whatever happened to the clock.
select b.outbox_batches, b.outbox_oldest_seconds, (select count(*) from eventsieve.parked) as dead_letters
from (
    select count(*) as outbox_batches,
           case when count(*) > 0 then greatest(extract(epoch from clock_timestamp() - min(received_at)), 0.001)
                else 0 end::float8 as outbox_oldest_seconds
    from eventsieve.batches
    where published_at is null
) b
