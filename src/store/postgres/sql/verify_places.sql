-- Places in the log with more than one event: one sentence each, at most 20.
select format('batch %s has two events at position %s', batch, position)
from eventsieve.events
group by batch, position
having count(*) > 1
order by batch, position
limit 20
