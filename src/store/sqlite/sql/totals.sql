-- The counters of all topics together, and the number of topics.
select coalesce(sum(received), 0), coalesce(sum(unique_processed), 0), coalesce(sum(duplicate_dropped), 0),
       coalesce(sum(conflicts), 0), coalesce(sum(pruned), 0),
       count(*) as topics
from topic_counts
