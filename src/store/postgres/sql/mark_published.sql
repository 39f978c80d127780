-- Marks batches as published where the lease is still the owner's. $1 owner, $2 the batches.
with marked as (
    update batches set published_at = now()
    where batch = any ($2) and owner = $1 and published_at is null
    returning batch
)
select count(*) from marked
