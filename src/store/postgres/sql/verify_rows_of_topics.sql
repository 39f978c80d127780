-- Topics whose rows are not as many as their counters say: one sentence each, at most 20.
select format('topic %s: %s rows, but its counters say %s', coalesce(r.topic, c.topic), coalesce(r.rows, 0), coalesce(c.kept, 0))
from (select topic, count(*) as rows from eventsieve.events group by topic) r
    full join (
        select topic, sum(unique_processed - pruned)::bigint as kept from eventsieve.topic_counts group by topic
    ) c using (topic)
where coalesce(r.rows, 0) <> coalesce(c.kept, 0)
order by 1
limit 20
