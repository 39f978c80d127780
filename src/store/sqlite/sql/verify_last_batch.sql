-- Whether an event has a batch above the last batch of the log: one sentence.
select format('batch %d is in the log, but the last batch of the log is %d', max(e.batch), l.last_batch)
from events e, log l
where e.batch > l.last_batch
having count(*) > 0
