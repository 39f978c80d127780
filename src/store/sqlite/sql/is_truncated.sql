-- Whether events behind a cursor are gone, of one topic or of any. ?1 batch, ?2 position, ?3 topic or null. A cursor in a gap names a
-- batch that this log does not have.
select ?1 > 0 and (
    exists (select 1 from log where (pruned_to_batch, pruned_to_position) > (?1, ?2))
        and (
            ?3 is null
            or exists (
                select 1 from topic_counts where topic = ?3 and (pruned_to_batch, pruned_to_position) > (?1, ?2)
            )
            -- It may be one of those that are forgotten.
            or not exists (select 1 from topic_counts where topic = ?3)
                and exists (select 1 from forgotten_topics where (pruned_to_batch, pruned_to_position) > (?1, ?2))
        )
    or coalesce((select before_batch > ?1 from gaps where after_batch < ?1 order by after_batch desc limit 1), false)
)
