-- Gives up all leases of an owner. $1 owner. An expired lease is left alone: after a long outage there may be very many.
with lazy as materialized (
    -- As in claim.sql.
    select set_config('synchronous_commit', 'off', true) as setting
), released as (
    update eventsieve.batches set owner = null, lease_until = null
    where owner = $1 and published_at is null and lease_until > now()
    returning batch
)
select count(*), (select setting from lazy) from released
