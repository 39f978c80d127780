-- Removes dead letters. $1 batches, $2 positions.
with durable as materialized (
    -- The commit of this statement waits for the disk, whatever the session's setting is, as in dead_letter.sql.
    select set_config('synchronous_commit', case reset_val when 'off' then 'on' else reset_val end, true)
    from pg_settings
    where name = 'synchronous_commit'
), gone as (
    delete from parked p
    using durable, unnest($1::bigint[], $2::int[]) as r(batch, position)
    where p.batch = r.batch and p.position = r.position
    returning p.batch
)
select count(*) from gone
