-- Marks batches as published where the lease is still the owner's. $1 owner, $2 the batches.
with lazy as materialized (
    -- As in claim.sql.
    select set_config('synchronous_commit', 'off', true) as setting
), marked as (
    update eventsieve.batches set published_at = now()
    where batch = any ($2) and owner = $1 and published_at is null
    returning batch
)
select count(*), (select setting from lazy) from marked
