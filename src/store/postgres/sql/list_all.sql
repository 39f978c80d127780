-- Lists everything, in log order, by the index events_pkey.
-- $1 null, $2 event_id, $3 source, $4 since, $5 until; $6, $7 batch and position behind which the list begins;
-- $8 only batches below this number; $9 limit; $10 offset; $11 how many bytes of payloads and headers at
-- most, but at least one event; $12 patterns of topics or null. A page of no events is one row whose event is null.
with listed as materialized (
    select e.*
    from eventsieve.events e
    where $1::text is null
      and ($2::text is null or e.event_id = $2)
      and ($12::text[] is null or e.topic like any ($12))
      and ($3::text is null or e.source = $3)
      and ($4::timestamptz is null or e.occurred_at >= $4)
      and ($5::timestamptz is null or e.occurred_at < $5)
      and (e.batch, e.position) > ($6::bigint, $7::int)
      and e.batch >= $6::bigint
      and e.batch < $8::bigint
    order by e.batch asc, e.position asc
    limit $9::bigint offset $10::bigint
), x as materialized (
    -- Whether all payloads fit. A payload that is not compressed has its size beside it, so this reads none of them.
    select coalesce(sum(pg_column_size(payload) + coalesce(pg_column_size(headers), 0)), 0) <= $11::bigint
               and count(pg_column_compression(payload)) = 0 and count(pg_column_compression(headers)) = 0 as fits
    from listed
), cut as materialized (
    -- The first place that does not fit, or a place beyond all. Computed only if asked for; reads payloads up to the cut.
    select coalesce(k.batch, 9223372036854775807) as batch, coalesce(k.position, 0) as position
    from (select) one
        left join (
            select k.batch, k.position
            from (
                select e.batch, e.position, row_number() over w as number,
                       sum(octet_length(e.payload::text) + coalesce(octet_length(e.headers::text), 0)) over w as bytes
                from listed e
                window w as (order by e.batch asc, e.position asc rows unbounded preceding)
            ) k
            where k.number > 1 and k.bytes > $11::bigint
            order by k.batch asc, k.position asc
            limit 1
        ) k on true
)
select s.last_stable, case when x.fits then false else (select batch from cut) <> 9223372036854775807 end as is_cut, p.*
from (select e.last_stable from eventsieve.log_end e) s
    cross join x
    left join (
        select e.topic, e.event_id, e.occurred_at, e.source, e.payload::text as payload, e.headers::text as headers,
               e.received_at, e.batch, e.position
        from listed e
        where case when (select fits from x) then true else (e.batch, e.position) < (select batch, position from cut) end
    ) p on true
order by p.batch asc, p.position asc
