-- Whether events behind a cursor are gone. ?1 batch, ?2 position. A cursor in a gap names a batch that this log does not have.
select ?1 > 0 and (
    exists (select 1 from log where (pruned_to_batch, pruned_to_position) > (?1, ?2))
    or coalesce((select before_batch > ?1 from gaps where after_batch < ?1 order by after_batch desc limit 1), false)
)
