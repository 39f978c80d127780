-- Notes that a partition was archived. $1 first batch, $2 manifest, $3 events. No row: it has
-- another number of events, may still get some, or is gone.
with marked as (
    update eventsieve.partitions p set archived_as = $2
    where p.first_batch = $1
      and p.ended_at is not null and (select e.first_unstable >= p.before_batch from eventsieve.log_end e)
      and $3 = (select count(*) from eventsieve.events e where e.batch >= p.first_batch and e.batch < p.before_batch)
    returning p.first_batch, p.before_batch
)
insert into eventsieve.archives (first_batch, before_batch, manifest, events, archived_at)
select m.first_batch, m.before_batch, $2, $3, now() from marked m
on conflict (first_batch) do update set manifest = excluded.manifest, events = excluded.events, archived_at = excluded.archived_at
returning first_batch
