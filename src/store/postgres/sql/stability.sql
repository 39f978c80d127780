-- How far the log is stable, in the snapshot of the statement: the view says what the columns mean.
select e.last_stable, e.committed_below, e.visibility_lag_seconds
from eventsieve.log_end e
