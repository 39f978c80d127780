-- Adds the counters of a topic to those of the topics that are forgotten. ?1 topic.
update forgotten_topics as f set
    received           = f.received + c.received,
    unique_processed   = f.unique_processed + c.unique_processed,
    duplicate_dropped  = f.duplicate_dropped + c.duplicate_dropped,
    conflicts          = f.conflicts + c.conflicts,
    pruned             = f.pruned + c.pruned,
    pruned_to_position = case when (f.pruned_to_batch, f.pruned_to_position) < (c.pruned_to_batch, c.pruned_to_position)
                              then c.pruned_to_position else f.pruned_to_position end,
    pruned_to_batch    = max(f.pruned_to_batch, c.pruned_to_batch)
from topic_counts c
where c.topic = ?1
