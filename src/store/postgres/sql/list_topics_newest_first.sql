-- Lists some topics, newest first, each by the index events_topic_log_idx.
-- $1 null, $2 event_id, $3 source, $4 since, $5 until; $6, $7 batch and position before which the list begins;
-- $8 only batches below this number; $9 limit; $10 offset; $11 how many bytes of payloads and headers at
-- most, but at least one event; $12, $13 ranges of names, from here to below there or null; $14 patterns; $15 how many topics at most: of more
-- it says is_many and reads nothing, because the log is read instead. So that not too many places are compared, a page may have fewer
-- events than its limit. A page of no events is one row whose event is null.
with names as materialized (
    select n.topic
    from unnest($12::text[], $13::text[]) r (low, below)
        cross join lateral (
            select t.topic
            from eventsieve.topics t
            where t.topic >= r.low and (r.below is null or t.topic < r.below) and t.topic like any ($14::text[])
            order by t.topic
            limit $15::bigint + 1
        ) n
    limit $15::bigint + 1
), k as materialized (
    select count(*) > $15::bigint as is_many, least($9::bigint, 100000 / greatest(count(*), 1)) as page_limit
    from names
), places as materialized (
    select p.batch, p.position
    from names t
        cross join lateral (
            select e.batch, e.position
            from eventsieve.events e
            where not (select is_many from k) and e.topic = t.topic and $1::text is null
              and ($2::text is null or e.event_id = $2)
              and ($3::text is null or e.source = $3)
              and ($4::timestamptz is null or e.occurred_at >= $4)
              and ($5::timestamptz is null or e.occurred_at < $5)
              and (e.batch, e.position) < ($6::bigint, $7::int)
              and e.batch <= $6::bigint
              and e.batch < $8::bigint
            order by e.batch desc, e.position desc
            limit (select page_limit from k) + $10::bigint
        ) p
    order by p.batch desc, p.position desc
    limit (select page_limit from k) offset $10::bigint
), listed as materialized (
    select e.*
    from places p
        cross join lateral (
            select e.*
            from eventsieve.events e
            where e.batch = p.batch and e.position = p.position
            limit 1
        ) e
), x as materialized (
    -- Whether all payloads fit. A payload that is not compressed has its size beside it, so this reads none of them.
    select coalesce(sum(pg_column_size(payload) + coalesce(pg_column_size(headers), 0)), 0) <= $11::bigint
               and count(pg_column_compression(payload)) = 0 and count(pg_column_compression(headers)) = 0 as fits
    from listed
), cut as materialized (
    -- The first place that does not fit, or a place beyond all. Computed only if asked for; reads payloads up to the cut.
    select coalesce(k.batch, -1) as batch, coalesce(k.position, 0) as position
    from (select) one
        left join (
            select k.batch, k.position
            from (
                select e.batch, e.position, row_number() over w as number,
                       sum(octet_length(e.payload::text) + coalesce(octet_length(e.headers::text), 0)) over w as bytes
                from listed e
                window w as (order by e.batch desc, e.position desc rows unbounded preceding)
            ) k
            where k.number > 1 and k.bytes > $11::bigint
            order by k.batch desc, k.position desc
            limit 1
        ) k on true
)
select k.is_many, k.page_limit, s.last_stable, case when x.fits then false else (select batch from cut) <> -1 end as is_cut, p.*
from (select e.last_stable from eventsieve.log_end e) s
    cross join x
    cross join k
    left join (
        select e.topic, e.event_id, e.occurred_at, e.source, e.payload::text as payload, e.headers::text as headers,
               e.received_at, e.batch, e.position
        from listed e
        where case when (select fits from x) then true else (e.batch, e.position) > (select batch, position from cut) end
    ) p on true
order by p.batch desc, p.position desc
