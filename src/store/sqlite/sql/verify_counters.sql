-- Topics whose counters contradict each other: one sentence each, at most 20.
select format('topic %s: its counters contradict each other: received %d, unique %d, duplicates %d, conflicts %d, pruned %d',
              topic, received, unique_processed, duplicate_dropped, conflicts, pruned)
from topic_counts
where received <> unique_processed + duplicate_dropped or conflicts > duplicate_dropped or pruned > unique_processed
order by topic
limit 20
