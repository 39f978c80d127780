-- Raises the offset of batch numbers where the cluster's next transaction id would not give a number above the newest batch:
-- a dump that was restored into a new cluster. The lock of the row lets one writer do it; the others then find it done.
with newest as (
    select greatest((select max(batch) from batches), (select max(batch) from events), high_water) as batch,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next
    from log
)
update log set xid_offset = newest.batch - newest.next + 1
from newest
where log.xid_offset + newest.next <= newest.batch
