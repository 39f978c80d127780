-- Those of $1 that have no counters.
select n.topic
from unnest($1::text[]) as n(topic)
where not exists (select from eventsieve.topics t where t.topic = n.topic)
