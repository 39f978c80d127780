-- Claims unpublished batches. $1 owner, $2 length of the lease, $3 how many at most. Concurrent claims skip the rows that are
-- locked here, and the lock ends with the statement. Rows are found again by their ctid: no plan can make a scan of that.
with free as materialized (
    select ctid as row
    from batches
    where published_at is null and (lease_until is null or lease_until <= now())
    order by batch
    limit $3
    for update skip locked
), claimed as (
    update batches set owner = $1, lease_until = now() + $2
    where ctid = any (array(select row from free))
    returning batch
)
select batch from claimed order by batch
