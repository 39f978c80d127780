-- The flush: one statement, one transaction, one round trip. A changed one gets a new name, so that replicas of the
-- version before go on working during a rolling upgrade.
--
-- A function, because one statement sees one snapshot: a first copy that another replica has just committed is met by
-- "on conflict" but not seen by a select beside it. In a volatile function each query has a fresh snapshot.
--
-- In: one element for each row, sorted by (topic, event_id, position), which is also the order in which two flushes lock
-- their keys: they can never deadlock. copies is how often the row was sent. The three count_* arrays have one element
-- for each topic, sorted: its events and its rows in this flush. owner null: nothing is owed to a fan-out.
--
-- Out: the batch, and for each row that was not stored (missed) its position, its first copy's place and time (null when
-- that was pruned a moment ago), and whether its payload is another value.
create function append_v1(
    p_flush_id uuid, p_shard integer, p_owner uuid, p_lease interval,
    p_topics text[], p_event_ids text[], p_occurred timestamptz[], p_sources text[], p_payloads text[],
    p_positions integer[], p_copies integer[],
    p_count_topics text[], p_count_received bigint[], p_count_rows bigint[],
    out batch bigint, out received_at timestamptz,
    out missed integer[], out first_batches bigint[], out first_positions integer[],
    out first_received timestamptz[], out conflicts boolean[]
) language plpgsql volatile
-- Arrays have no statistics: without this the planner may join missed rows by a nested loop, n² for a large batch.
set enable_nestloop = off
-- The price tag of that on the look-ups, which cannot but be a nested loop, would make each flush compile itself (JIT).
set jit = off
as $$
#variable_conflict use_column
declare
    v_stored        integer[];
    v_missed_topics text[];
    v_missed_copies integer[];
    v_hit           boolean;
begin
    insert into batches (batch, flush_id, received_at, owner, lease_until, published_at)
    select l.xid_offset + pg_current_xact_id()::text::bigint, p_flush_id, now(), p_owner, now() + p_lease,
           case when p_owner is null then now() end
    from log l
    on conflict (flush_id) do nothing
    returning batches.batch, batches.received_at into batch, received_at;
    v_hit := not found;

    if v_hit then
        -- An earlier attempt of this flush committed: what it stored carries its batch. Nothing is written.
        select b.batch, b.received_at into strict batch, received_at from batches b where b.flush_id = p_flush_id;
        select array_agg(e.position) into v_stored from events e where e.batch = append_v1.batch;
    else
        with stored as (
            insert into events (topic, event_id, occurred_at, source, payload, received_at, batch, position)
            select r.topic, r.event_id, r.occurred_at, r.source, r.payload::json, append_v1.received_at, append_v1.batch, r.position
            from unnest(p_topics, p_event_ids, p_occurred, p_sources, p_payloads, p_positions)
                as r(topic, event_id, occurred_at, source, payload, position)
            on conflict (topic, event_id) do nothing
            returning position
        )
        select array_agg(stored.position) into v_stored from stored;
    end if;

    -- First copies, by primary key for each row; "offset 0" keeps the planner from turning the look-up into a join.
    if coalesce(cardinality(v_stored), 0) < cardinality(p_positions) then
        select array_agg(r.position), array_agg(f.batch), array_agg(f.position), array_agg(f.received_at),
               array_agg(coalesce(f.conflict, false)), array_agg(r.topic), array_agg(r.copies)
        into missed, first_batches, first_positions, first_received, conflicts, v_missed_topics, v_missed_copies
        from unnest(p_topics, p_event_ids, p_payloads, p_positions, p_copies)
                as r(topic, event_id, payload, position, copies)
            left join unnest(v_stored) as s(position) on s.position = r.position
            left join lateral (
                select e.batch, e.position, e.received_at,
                       case when e.payload::text = r.payload then false
                            else e.payload::jsonb <> r.payload::jsonb end as conflict
                from events e
                where e.topic = r.topic and e.event_id = r.event_id
                offset 0
            ) f on true
        where s.position is null;
    end if;

    if not v_hit then
        insert into topic_counts as c (topic, shard, received, unique_processed, duplicate_dropped, conflicts)
        select t.topic, p_shard, t.received,
               t.rows - coalesce(m.rows, 0),
               t.received - t.rows + coalesce(m.rows, 0),
               coalesce(m.conflicts, 0)
        from unnest(p_count_topics, p_count_received, p_count_rows) as t(topic, received, rows)
            left join (
                select topic, count(*) as rows, sum(copies) filter (where conflict) as conflicts
                from unnest(v_missed_topics, v_missed_copies, append_v1.conflicts) as x(topic, copies, conflict)
                group by topic
            ) m on m.topic = t.topic
        order by t.topic collate "C"
        on conflict (topic, shard) do update set
            received          = c.received + excluded.received,
            unique_processed  = c.unique_processed + excluded.unique_processed,
            duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
            conflicts         = c.conflicts + excluded.conflicts;

        if v_stored is null then
            -- A batch that stored nothing has nothing to publish.
            update batches set published_at = append_v1.received_at where batches.batch = append_v1.batch and published_at is null;
        end if;
    end if;
end
$$;
