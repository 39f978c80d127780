-- Topics whose rows are not as many as their counters say: one sentence each, at most 20.
select format('topic %s: %d rows, but its counters say %d', coalesce(r.topic, c.topic), coalesce(r.rows, 0), coalesce(c.kept, 0))
from (select topic, count(*) as rows from events group by topic) r
    full join (select topic, unique_processed - pruned as kept from topic_counts) c on c.topic = r.topic
where coalesce(r.rows, 0) <> coalesce(c.kept, 0)
order by 1
limit 20
