-- One step of pruning. $1, $2 batch and position behind which it begins; $3 events received before this time are removed; $4 how
-- many events it examines; $5 whether it only counts. A dead letter is not published, though its batch is. Rows are found again
-- by their ctid, which is valid for the statement's own snapshot: no plan can make a scan of that. Counters change in the order
-- of topics, as in a group commit. An event of the future was received when the clock was wrong: it says nothing about those behind it.
with page as materialized (
    select e.ctid as row, e.batch, e.position, e.received_at < $3 as is_old, e.received_at > now() + interval '1 hour' as is_future,
           exists (select from eventsieve.batches b where b.batch = e.batch and b.published_at is null)
               or exists (select from eventsieve.parked p where p.batch = e.batch and p.position = e.position) as is_unpublished
    from eventsieve.events e
    where (e.batch, e.position) > ($1, $2)
    order by e.batch, e.position
    limit $4
), gone as (
    delete from eventsieve.events
    where ctid = any (array(select row from page where is_old and not is_unpublished and not $5))
    returning topic, batch, position
), counted as (
    insert into eventsieve.topic_counts as c (topic, lane, received, unique_processed, duplicate_dropped, conflicts, pruned)
    select topic, 0, 0, 0, 0, 0, count(*) from gone group by topic order by topic
    on conflict (topic, lane) do update set pruned = c.pruned + excluded.pruned
), marked as (
    update eventsieve.log l set pruned_to_batch = newest.batch, pruned_to_position = newest.position
    from (select batch, position from gone order by batch desc, position desc limit 1) newest
    where (newest.batch, newest.position) > (l.pruned_to_batch, l.pruned_to_position)
)
select (select count(*) from page) as examined,
       (select count(*) from page where is_old) as old,
       (select count(*) from page where is_future) as future,
       case when $5 then (select count(*) from page where is_old and not is_unpublished)
            else (select count(*) from gone) end as removed,
       (select count(*) from page where is_old and is_unpublished) as unpublished,
       last.batch, last.position
from (select) one
    left join (select batch, position from page order by batch desc, position desc limit 1) last on true
