-- Gives up leases on some batches. $1 owner, $2 the batches.
with lazy as materialized (
    -- As in claim.sql.
    select set_config('synchronous_commit', 'off', true) as setting
), released as (
    update eventsieve.batches set owner = null, lease_until = null
    where batch = any ($2) and owner = $1 and published_at is null
    returning batch
)
select count(*), (select setting from lazy) from released
