-- Whether the server takes no writes, and how far the log is stable (as in stability.sql).
select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as is_read_only,
       s.first_unstable, s.committed_below,
       coalesce((
           select greatest(extract(epoch from clock_timestamp() - b.received_at), 0)::float8
           from batches b
           where b.batch >= s.first_unstable
           order by b.batch
           limit 1
       ), 0) as visibility_lag_seconds
from (
    select l.xid_offset + pg_snapshot_xmin(pg_current_snapshot())::text::bigint as first_unstable,
           l.xid_offset + pg_snapshot_xmax(pg_current_snapshot())::text::bigint as committed_below
    from log l
) s
