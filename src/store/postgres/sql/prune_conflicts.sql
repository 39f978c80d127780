-- Removes conflicts received before a time, the oldest first. $1 time, $2 how many at most.
with gone as (
    delete from eventsieve.conflicts
    where ctid = any (array(
        select c.ctid
        from (select c.ctid, c.received_at from eventsieve.conflicts c order by c.batch, c.position limit $2::bigint) c
        where c.received_at < $1
    ))
    returning 1
)
select count(*) from gone
