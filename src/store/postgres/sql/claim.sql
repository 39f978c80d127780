-- Claims unpublished batches. $1 owner, $2 length of the lease, $3 how many at most, $4 a lease that ends later than this from now
-- was made when the clock was wrong. Concurrent claims skip the rows that are locked here, and the lock ends with the statement.
-- Rows are found again by their ctid: no plan can make a scan of that.
with lazy as materialized (
    -- The commit of this statement need not wait for the disk: a claim that is lost in a crash only causes a batch to be
    -- published again. A setting of the session would reach other sessions through a pooler.
    select set_config('synchronous_commit', 'off', true) as setting
), free as materialized (
    select ctid as row
    from eventsieve.batches
    where published_at is null and (lease_until is null or lease_until <= now() or lease_until > now() + $4)
    order by batch
    limit $3
    for update skip locked
), claimed as (
    update eventsieve.batches set owner = $1, lease_until = now() + $2
    where ctid = any (array(select row from free))
    returning batch
)
select batch from claimed where (select setting from lazy) is not null order by batch
