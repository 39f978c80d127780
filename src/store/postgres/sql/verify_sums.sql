-- Whether the totals are the sums over the topics, those that are forgotten included: one sentence each.
select format('the totals say %s %s, but the topics %s', x.total, x.name, x.sum)
from (
    select coalesce(sum(received), 0) as received, coalesce(sum(unique_processed), 0) as unique_processed,
           coalesce(sum(duplicate_dropped), 0) as duplicate_dropped, coalesce(sum(conflicts), 0) as conflicts,
           coalesce(sum(pruned), 0) as pruned, coalesce(sum(topics), 0) as topics
    from eventsieve.totals
) t,
(
    select sum(received) as received, sum(unique_processed) as unique_processed, sum(duplicate_dropped) as duplicate_dropped,
           sum(conflicts) as conflicts, sum(pruned) as pruned
    from (
        select received, unique_processed, duplicate_dropped, conflicts, pruned from eventsieve.topic_counts
        union all
        select received, unique_processed, duplicate_dropped, conflicts, pruned from eventsieve.forgotten_topics
    ) every
) s,
(select count(distinct topic) as topics from eventsieve.topic_counts) n,
(select count(*) as topics from eventsieve.topics) k
    cross join lateral (
        values ('received', t.received, s.received), ('unique', t.unique_processed, s.unique_processed),
               ('duplicates', t.duplicate_dropped, s.duplicate_dropped), ('conflicts', t.conflicts, s.conflicts),
               ('pruned', t.pruned, s.pruned), ('topics', t.topics, n.topics), ('listed topics', k.topics, n.topics)
    ) as x(name, total, sum)
where x.total <> x.sum
