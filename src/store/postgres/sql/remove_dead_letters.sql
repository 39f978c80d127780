-- Removes dead letters. $1 batches, $2 positions.
with durable as materialized (
    select eventsieve.commit_durably()
), gone as (
    delete from eventsieve.parked p
    using durable, unnest($1::bigint[], $2::int[]) as r(batch, position)
    where p.batch = r.batch and p.position = r.position
    returning p.batch
)
select count(*) from gone
