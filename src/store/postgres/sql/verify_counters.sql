-- Topics whose counters contradict each other: one sentence each, at most 20.
select format('topic %s: its counters contradict each other: received %s, unique %s, duplicates %s, conflicts %s, pruned %s',
              topic, received, unique_processed, duplicate_dropped, conflicts, pruned)
from (
    select topic, sum(received) as received, sum(unique_processed) as unique_processed,
           sum(duplicate_dropped) as duplicate_dropped, sum(conflicts) as conflicts, sum(pruned) as pruned
    from eventsieve.topic_counts
    group by topic
) c
where received <> unique_processed + duplicate_dropped or conflicts > duplicate_dropped or pruned > unique_processed
order by topic
limit 20
