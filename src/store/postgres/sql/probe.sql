-- Whether the server takes no writes, and how far the log is stable (as in stability.sql).
select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as is_read_only,
       e.last_stable, e.committed_below, e.visibility_lag_seconds
from eventsieve.log_end e
