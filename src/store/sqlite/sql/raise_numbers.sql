-- The numbering begins anew. ?1 the time in microseconds since 1970. The numbers that may ever have been given out are lower,
-- unless more than a million batches a second were stored since the last start.
update log set last_batch = max(last_batch + 1, ?1) returning last_batch
