-- Removes conflicts received before a time, the oldest first. ?1 time, ?2 how many at most.
delete from conflicts
where (batch, position) in (
    select batch, position
    from (select batch, position, received_at from conflicts order by batch, position limit ?2)
    where received_at < ?1
)
