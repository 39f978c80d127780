-- Counts events of a topic as pruned. ?1 topic, ?2 how many, ?3, ?4 the place of the newest.
update topic_counts set
    pruned             = pruned + ?2,
    pruned_to_position = case when (pruned_to_batch, pruned_to_position) < (?3, ?4) then ?4 else pruned_to_position end,
    pruned_to_batch    = case when (pruned_to_batch, pruned_to_position) < (?3, ?4) then ?3 else pruned_to_batch end
where topic = ?1
