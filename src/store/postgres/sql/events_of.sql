-- The events of some batches. $1 the batches; $2, $3 batch and position after which the page begins; $4 how many events at
-- most; $5 how many bytes of payload at most, but at least one event; $6, $7 the lowest and the highest of the batches. Reads batch by batch, so events of other batches in
-- between cost nothing, and it stops at the limit. A page of no events is one row whose event is null.
with examined as materialized (
    select e.*
    from (
            select b.batch from unnest($1::bigint[]) as b(batch) where b.batch >= $2::bigint order by b.batch
        ) b
        cross join lateral (
            select e.*
            from eventsieve.events e
            where e.batch = b.batch and (e.batch, e.position) > ($2::bigint, $3::int)
              and e.batch between $6::bigint and $7::bigint
            order by e.batch, e.position
            limit $4::bigint + 1
        ) e
    order by b.batch, e.position
    limit $4::bigint + 1
), x as materialized (
    -- Whether all payloads fit. A payload that is not compressed has its size beside it, so this reads none of them.
    select count(*) as scanned,
           coalesce(sum(pg_column_size(payload) + coalesce(pg_column_size(headers), 0)), 0) <= $5::bigint and count(pg_column_compression(payload)) = 0
               and count(pg_column_compression(headers)) = 0 as fits
    from examined
), cut as materialized (
    -- The first place that does not fit, or a place beyond all. Computed only if asked for; reads payloads up to the cut.
    select coalesce(k.batch, 9223372036854775807) as batch, coalesce(k.position, 0) as position
    from (select) one
        left join (
            select k.batch, k.position
            from (
                select e.batch, e.position, row_number() over w as number,
                       sum(octet_length(e.payload::text) + coalesce(octet_length(e.headers::text), 0)) over w as bytes
                from (select e.* from examined e order by e.batch, e.position limit $4::bigint) e
                window w as (order by e.batch, e.position rows unbounded preceding)
            ) k
            where k.number > 1 and k.bytes > $5::bigint
            order by k.batch, k.position
            limit 1
        ) k on true
)
select x.scanned,
       case when x.fits then false else (select batch from cut) < 9223372036854775807 end as is_cut,
       p.*
from x
    left join (
        select e.topic, e.event_id, e.occurred_at, e.source, e.payload::text as payload, e.headers::text as headers,
               e.received_at, e.batch, e.position
        from examined e
        where case when (select fits from x) then true
                   else (e.batch, e.position) < (select batch, position from cut) end
        order by e.batch, e.position
        limit $4::bigint
    ) p on true
order by p.batch, p.position
