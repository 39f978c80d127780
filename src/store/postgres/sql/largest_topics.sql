-- The largest topics, where there are more than a list of them has. $1 how many that is.
select c.topic
from eventsieve.topic_counts c
where (select coalesce(sum(t.topics), 0) from eventsieve.totals t) > $1
group by c.topic
order by sum(c.unique_processed) desc, c.topic
limit $1
