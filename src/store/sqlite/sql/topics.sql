-- Topics by name. ?1 the name behind which the list begins; ?2, ?3 names from here to below there.
select received, unique_processed, duplicate_dropped, conflicts, pruned, topic, first_received_at, last_received_at
from topic_counts
where topic > ?1 and topic >= ?2 and (?3 is null or topic < ?3)
order by topic
