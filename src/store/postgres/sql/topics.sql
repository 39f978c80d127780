-- Topics by name. $1 the name behind which the list begins; $2, $3 names from here to below there; $4 limit; $5 patterns or
-- null.
select c.topic, sum(c.received)::bigint as received, sum(c.unique_processed)::bigint as unique_processed,
       sum(c.duplicate_dropped)::bigint as duplicate_dropped, sum(c.conflicts)::bigint as conflicts, sum(c.pruned)::bigint as pruned,
       min(c.first_received_at) as first_received_at, max(c.last_received_at) as last_received_at
from eventsieve.topic_counts c
where c.topic > $1 and c.topic >= $2 and ($3::text is null or c.topic < $3)
  and ($5::text[] is null or c.topic like any ($5))
group by c.topic
order by c.topic
limit $4::bigint
