-- The counters of all topics together, and the number of topics.
select received, unique_processed, duplicate_dropped, conflicts, pruned, topics from totals
