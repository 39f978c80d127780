-- A page of a cursor read of everything, by the index events_pkey.
-- $1 null, $2 event_id, $3 source, $4 since, $5 until; $6, $7 batch and position after which the page begins;
-- $8 how many rows to examine; $9 how many events at most; $10 how many bytes of payload at most, but at least one event;
-- $11 patterns of topics or null. A page of no events is one row whose event is null. is_unknown: the log has not given out a cursor as high as that.
with s as materialized (
    select e.first_unstable, e.last_stable, $6::bigint > e.newest as is_unknown,
           eventsieve.is_truncated($6::bigint, $7::int, $1) as is_truncated
    from eventsieve.log_end e
), examined as materialized (
    select e.*
    from eventsieve.events e
    where $1::text is null
      and (e.batch, e.position) > ($6::bigint, $7::int)
      and e.batch >= $6::bigint
      and e.batch < (select first_unstable from s)
    order by e.batch, e.position
    limit $8::bigint
), x as materialized (
    -- Whether all payloads fit. A payload that is not compressed has its size beside it, so this reads none of them.
    select count(*) as scanned,
           coalesce(sum(pg_column_size(payload) + coalesce(pg_column_size(headers), 0)), 0) <= $10::bigint and count(pg_column_compression(payload)) = 0
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
                from (
                    select e.*
                    from examined e
                    where ($2::text is null or e.event_id = $2)
                      and ($11::text[] is null or e.topic like any ($11))
                      and ($3::text is null or e.source = $3)
                      and ($4::timestamptz is null or e.occurred_at >= $4)
                      and ($5::timestamptz is null or e.occurred_at < $5)
                    order by e.batch, e.position
                    limit $9::bigint
                ) e
                window w as (order by e.batch, e.position rows unbounded preceding)
            ) k
            where k.number > 1 and k.bytes > $10::bigint
            order by k.batch, k.position
            limit 1
        ) k on true
)
select s.last_stable, s.is_unknown, s.is_truncated, x.scanned,
       case when x.fits then false else (select batch from cut) < 9223372036854775807 end as is_cut,
       l.batch as scanned_batch, l.position as scanned_position, p.*
from s
    cross join x
    left join (select batch, position from examined order by batch desc, position desc limit 1) l on true
    left join (
        select e.topic, e.event_id, e.occurred_at, e.source, e.payload::text as payload, e.headers::text as headers,
               e.received_at, e.batch, e.position
        from examined e
        where ($2::text is null or e.event_id = $2)
          and ($11::text[] is null or e.topic like any ($11))
          and ($3::text is null or e.source = $3)
          and ($4::timestamptz is null or e.occurred_at >= $4)
          and ($5::timestamptz is null or e.occurred_at < $5)
          and case when (select fits from x) then true
                   else (e.batch, e.position) < (select batch, position from cut) end
        order by e.batch, e.position
        limit $9::bigint
    ) p on true
order by p.batch, p.position
