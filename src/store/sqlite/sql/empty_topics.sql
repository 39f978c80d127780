-- Whether nothing is left of the topics behind ?1, by name: their events have expired, and so have their identities, which are those received
-- before ?2. ?3 how many topics at most.
select topic, unique_processed = pruned and coalesce(last_received_at < ?2, true)
from topic_counts
where topic > ?1
order by topic
limit ?3
