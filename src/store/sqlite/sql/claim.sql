-- Claims unpublished batches. ?1 owner, ?2 end of the lease, ?3 now, ?4 how many at most; ?5 a lease that
-- ends later than this was made when the clock was wrong. There is one writer at a time, so two concurrent claims take turns of
-- some microseconds each.
update batches set owner = ?1, lease_until = ?2
where batch in (
    select batch
    from batches indexed by batches_unpublished_idx
    where published_at is null and (lease_until is null or lease_until <= ?3 or lease_until > ?5)
    order by batch
    limit ?4
)
returning batch
