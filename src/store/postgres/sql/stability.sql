-- How far the log is stable, in the snapshot of the statement: the first batch that is not stable, a number above every
-- committed batch, and the age of the oldest committed batch that is not stable.
select s.first_unstable, s.committed_below,
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
