-- Whether the totals are the sums over the topics, those that are forgotten included: one sentence each.
with s as (
    select coalesce(sum(received), 0) as received, coalesce(sum(unique_processed), 0) as unique_processed,
           coalesce(sum(duplicate_dropped), 0) as duplicate_dropped, coalesce(sum(conflicts), 0) as conflicts,
           coalesce(sum(pruned), 0) as pruned
    from (
        select received, unique_processed, duplicate_dropped, conflicts, pruned from topic_counts
        union all
        select received, unique_processed, duplicate_dropped, conflicts, pruned from forgotten_topics
    )
)
select format('the totals say %d %s, but the topics %d', total, name, sum)
from (
    select 'received' as name, t.received as total, s.received as sum from totals t, s
    union all select 'unique', t.unique_processed, s.unique_processed from totals t, s
    union all select 'duplicates', t.duplicate_dropped, s.duplicate_dropped from totals t, s
    union all select 'conflicts', t.conflicts, s.conflicts from totals t, s
    union all select 'pruned', t.pruned, s.pruned from totals t, s
    union all select 'topics', t.topics, (select count(*) from topic_counts) from totals t
)
where total <> sum
