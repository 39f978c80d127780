-- One step of pruning the commit ledger. $1 the batch behind which the step begins, $2 the age, $3 how many rows it examines.
-- "high_water" keeps the number of a removed batch from being given out again: of a batch that stored nothing, this row is the
-- only trace. Only stable rows are removed, so that "high_water" is a place for a cursor at the end.
-- A row of the future was received when the clock was wrong: it says nothing about those behind it.
with lazy as materialized (
    -- As in claim.sql.
    select set_config('synchronous_commit', 'off', true) as setting
), page as materialized (
    select ctid as row, batch, received_at > now() - $2 and received_at <= now() + interval '1 hour' as is_young, published_at <= now() - $2 as is_done
    from eventsieve.batches
    where batch > $1 and batch < (select l.first_unstable from eventsieve.log_end l)
    order by batch
    limit $3
), young as materialized (
    select min(batch) as batch from page where is_young
), gone as (
    delete from eventsieve.batches
    where ctid = any (array(
        select p.row from page p, young where p.is_done and (young.batch is null or p.batch < young.batch)
    ))
    returning batch
), marked as (
    update eventsieve.log set high_water = newest.batch
    from (select max(batch) as batch from gone) newest
    where newest.batch > high_water
)
select (select count(*) from gone) as count,
       (select count(*) from page) as examined,
       (select max(batch) from page) as last,
       young.batch is not null as has_met_young,
       (select setting from lazy)
from young
