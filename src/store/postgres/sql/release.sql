-- Gives up leases on some batches. $1 owner, $2 the batches.
with released as (
    update batches set owner = null, lease_until = null
    where batch = any ($2) and owner = $1 and published_at is null
    returning batch
)
select count(*) from released
