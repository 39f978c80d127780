-- Partitions that are listed but not there, or there but not listed: one sentence each, at most 20.
select format('partition %s is %s', coalesce(p.table_name, t.name),
              case when t.name is null then 'listed, but not there' else 'there, but not listed' end)
from eventsieve.partitions p
    full join (
        select c.relname::text as name
        from pg_inherits i
            join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'eventsieve.events'::regclass
    ) t on t.name = p.table_name
where t.name is null or p.table_name is null
order by 1
limit 20
