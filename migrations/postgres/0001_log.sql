-- The log: every event once, the ledger of flushes, exact counters, and where the log stands. Every name is qualified, because a
-- pooler may give a statement to a session of its own, with any search_path.

-- One row. A batch's number is xid_offset + the id of the transaction that stored it, so that numbers rise in the order in which
-- transactions begin to write. high_water is the highest number of which no other trace is left: a batch whose row was pruned
-- from the ledger, or the number at which the numbering began anew (raise_numbers below).
--
-- server_started_at and log_oid say for which start of the server, and for which table, xid_offset was made. After a restart, a
-- promotion, or a restore of any kind they differ from those of the server that is asked.
--
-- pruned_to_*: the newest event that was pruned. Whoever reads on from a cursor before it has missed something.
create table eventsieve.log (
    only_row           boolean     not null default true,
    xid_offset         bigint      not null default 0,
    high_water         bigint      not null default 0,
    server_started_at  timestamptz,
    log_oid            oid,
    pruned_to_batch    bigint      not null default 0,
    pruned_to_position integer     not null default 0,
    constraint log_pkey primary key (only_row),
    constraint log_only_row_check check (only_row)
);
insert into eventsieve.log default values;

-- Numbers that no batch of this log has: those between the newest batch and the one at which the numbering began anew. A cursor
-- with such a number was given out by a copy of the log whose newest batches are lost, or by an older log.
create table eventsieve.gaps (
    after_batch  bigint not null,
    before_batch bigint not null,
    constraint gaps_pkey primary key (after_batch),
    constraint gaps_order_check check (after_batch < before_batch)
);

-- Identity is compared byte for byte, whatever the database's locale: collate "C". A change of glibc's or ICU's sort
-- order can then never corrupt the unique key. The payload is json, not jsonb: it comes back as it was sent, and so do the headers.
create table eventsieve.events (
    topic       text collate "C" not null,
    event_id    text collate "C" not null,
    occurred_at timestamptz      not null,
    source      text             not null,
    payload     json             not null,
    headers     json,
    received_at timestamptz      not null,
    batch       bigint           not null,
    position    integer          not null,
    constraint events_pkey primary key (topic, event_id)
);
-- The log's order, of everything and of one topic.
create index events_log_idx on eventsieve.events (batch, position);
create index events_topic_log_idx on eventsieve.events (topic, batch, position);

-- The ledger: a row for each flush. The unique flush_id proves to a retry that its first attempt committed. The same row
-- is the outbox: unpublished until the sink has its events; owner and lease_until say who is on it.
create table eventsieve.batches (
    batch        bigint      not null,
    flush_id     uuid        not null,
    received_at  timestamptz not null,
    owner        uuid,
    lease_until  timestamptz,
    published_at timestamptz,
    constraint batches_pkey primary key (batch),
    constraint batches_flush_id_key unique (flush_id)
);
-- What is to be claimed, in the order in which it is claimed.
create index batches_unpublished_idx on eventsieve.batches (batch) where published_at is null;

-- Exact counters, changed in the transaction that stores the events. Several lanes of a topic, so that writers seldom wait for
-- each other's row; half-filled pages, so that an update stays on its page (HOT).
create table eventsieve.topic_counts (
    topic             text collate "C" not null,
    lane              integer          not null,
    received          bigint           not null,
    unique_processed  bigint           not null,
    duplicate_dropped bigint           not null,
    conflicts         bigint           not null,
    pruned            bigint           not null default 0,
    constraint topic_counts_pkey primary key (topic, lane),
    constraint topic_counts_sum_check check (received = unique_processed + duplicate_dropped)
) with (fillfactor = 50);

-- Dead letters: events that the sink refuses for themselves (it would refuse them again tomorrow, and hold up what comes behind
-- them). The event stays in the log; what is kept here is that the sink is owed it, since when, and what was said. Their batch
-- counts as published, so nothing else in it waits. A row goes when the sink has taken the event after all.
--
-- The place is the key, for that is the order in which they are listed and sent again. The identity stands beside it, so that
-- an event is found by its own key, and a row that has outlived its event is seen for what it is. There is no foreign key:
-- every event that is pruned would have to look here, and prune leaves out what is parked.
create table eventsieve.parked (
    batch     bigint           not null,
    position  integer          not null,
    topic     text collate "C" not null,
    event_id  text collate "C" not null,
    parked_at timestamptz      not null,
    reason    text             not null,
    constraint parked_pkey primary key (batch, position)
);

-- Where the log stands, in the snapshot of the statement.
--
-- first_unstable: the first number of which a transaction may still be writing. Everything below it has ended. It is not durable:
-- a transaction id that left no trace on disk is given out again after a crash, so no cursor may name it.
-- last_stable: the newest committed batch below it. A commit is visible to others only when it is on disk (and on the standby,
-- where one is waited for), and later numbers are higher, after a crash as well: this is the place for a cursor at the end.
-- newest: the newest number that this log has ever given out.
-- committed_below: every batch that is committed in this snapshot has a lower number.
create view eventsieve.log_end as
select e.first_unstable, e.committed_below,
       greatest(
           case when e.high_water < e.first_unstable then e.high_water else 0 end,
           (select b.batch from eventsieve.batches b where b.batch < e.first_unstable order by b.batch desc limit 1)
       ) as last_stable,
       greatest(
           e.high_water,
           (select b.batch from eventsieve.batches b order by b.batch desc limit 1)
       ) as newest,
       coalesce((
           select greatest(extract(epoch from clock_timestamp() - b.received_at), 0)
           from eventsieve.batches b
           where b.batch >= e.first_unstable
           order by b.batch
           limit 1
       ), 0)::float8 as visibility_lag_seconds
from (
    select l.high_water,
           l.xid_offset + pg_snapshot_xmin(pg_current_snapshot())::text::bigint as first_unstable,
           l.xid_offset + pg_snapshot_xmax(pg_current_snapshot())::text::bigint as committed_below
    from eventsieve.log l
) e;

-- Whether events behind a cursor are gone: pruned, or lost with the copy of the log that gave it out. A cursor in a gap names a
-- batch that this log does not have.
create function eventsieve.is_truncated(p_batch bigint, p_position integer) returns boolean language sql stable as $$
    select p_batch > 0 and (
        exists (
            select from eventsieve.log l
            where (l.pruned_to_batch, l.pruned_to_position) > (p_batch, p_position)
        )
        or coalesce((
            select g.before_batch > p_batch
            from eventsieve.gaps g
            where g.after_batch < p_batch
            order by g.after_batch desc
            limit 1
        ), false)
    )
$$;

-- The numbering begins anew, above every number that may ever have been given out, if this has not happened since the server was
-- started: a server that was restarted, promoted or restored may have lost the newest batches, and their numbers must not come
-- again. They are lower than the time in microseconds, unless more than a million transactions a second were begun since the last
-- start. Once for each start is more often than needed, and needs no knowledge of what happened.
--
-- The lock of the row lets one transaction do it; the others wait, and then find it done.
create function eventsieve.raise_numbers() returns boolean language plpgsql volatile as $$
declare
    v_newest bigint;
    v_base   bigint;
begin
    perform from eventsieve.log l
    where l.server_started_at is distinct from pg_postmaster_start_time() or l.log_oid is distinct from l.tableoid
    for update;
    if not found then
        return false;
    end if;
    perform eventsieve.commit_durably();
    select greatest(l.high_water, (select max(b.batch) from eventsieve.batches b), (select max(e.batch) from eventsieve.events e))
    into strict v_newest
    from eventsieve.log l;
    v_base := greatest(v_newest + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint);
    insert into eventsieve.gaps (after_batch, before_batch)
    values (v_newest, v_base)
    on conflict (after_batch) do update set before_batch = greatest(gaps.before_batch, excluded.before_batch);
    -- Every transaction that may still store a batch has an id of xmin or above.
    update eventsieve.log l
    set xid_offset = v_base + 1 - pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
        high_water = v_base,
        server_started_at = pg_postmaster_start_time(),
        log_oid = l.tableoid;
    return true;
end
$$;

-- Makes the commit of the transaction wait for the disk, whatever the session's setting is (a pooler may have given this session
-- the setting of another one). A stronger setting of the server is kept. The setting ends with the transaction.
create function eventsieve.commit_durably() returns void language plpgsql volatile as $$
begin
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', case s.reset_val when 'off' then 'on' else s.reset_val end, true)
        from pg_settings s
        where s.name = 'synchronous_commit';
    end if;
end
$$;

-- For the flush whose batch could not be begun at once: an earlier attempt of it has committed, or the server was started since
-- the last flush.
--
-- The lock of the earlier attempt's row is written to the write-ahead log, and that makes this transaction wait for the disk, and
-- for the standby, as the attempt would have: it may have been cut off while it waited.
create function eventsieve.find_or_begin_batch(
    p_flush_id uuid, p_owner uuid, p_lease interval, out batch bigint, out received_at timestamptz, out is_repeated boolean
) language plpgsql volatile as $$
#variable_conflict use_column
begin
    for attempt in 1..3 loop
        select b.batch, b.received_at into batch, received_at
        from eventsieve.batches b
        where b.flush_id = p_flush_id
        for update;
        if found then
            is_repeated := true;
            return;
        end if;
        perform eventsieve.raise_numbers();
        insert into eventsieve.batches (batch, flush_id, received_at, owner, lease_until, published_at)
        select l.xid_offset + pg_current_xact_id()::text::bigint, p_flush_id, now(), p_owner, now() + p_lease,
               case when p_owner is null then now() end
        from eventsieve.log l
        on conflict (flush_id) do nothing
        returning batches.batch, batches.received_at into batch, received_at;
        if found then
            is_repeated := false;
            return;
        end if;
        -- Another attempt has committed between the two statements.
    end loop;
    raise exception 'the batch of flush % cannot be begun', p_flush_id using errcode = 'serialization_failure';
end
$$;

-- The flush: one statement, one transaction, one round trip.
--
-- A function, because one statement sees one snapshot: a first copy that another replica has just committed is met by
-- "on conflict" but not seen by a select beside it. In a volatile function each query has a fresh snapshot.
--
-- In: one element for each row, sorted by (topic, event_id, position), which is also the order in which two flushes lock
-- their keys: they can never deadlock. copies is how often the row was sent. The three count_* arrays have one element
-- for each topic, sorted: its events and its rows in this flush. owner null: nothing is owed to a sink. headers null: no event
-- has any.
--
-- Out: the batch, and for each row that was not stored (missed) its position, its first copy's place and time (null when
-- that was pruned a moment ago), and whether its payload is another value.
--
-- Each query of a function is started anew whenever it is called, and the fewer nodes its plan has the faster that is:
-- - Where every row is stored, there is nothing to subtract from the counters.
-- - A single row has a function of its own, append_row: nothing to unnest, no arrays to take apart.
create function eventsieve.append(
    p_flush_id uuid, p_lane integer, p_owner uuid, p_lease interval,
    p_topics text[], p_event_ids text[], p_occurred timestamptz[], p_sources text[], p_payloads text[],
    p_positions integer[], p_copies integer[],
    p_count_topics text[], p_count_received bigint[], p_count_rows bigint[], p_headers text[] default null,
    out batch bigint, out received_at timestamptz,
    out missed integer[], out first_batches bigint[], out first_positions integer[],
    out first_received timestamptz[], out conflicts boolean[]
) language plpgsql volatile
-- Arrays have no statistics: without this the planner may join missed rows by a nested loop, n² for a large batch.
set enable_nestloop = off
-- A plan made while the table was small would go on reading all of it for each first copy until the next analyze.
set enable_seqscan = off
-- The price tags of these on what cannot but be a nested loop, or a scan, would make each flush compile itself (JIT).
set jit = off
as $$
#variable_conflict use_column
declare
    v_stored        integer[];
    v_missed_topics text[];
    v_missed_copies integer[];
    v_is_repeated   boolean;
begin
    if current_setting('synchronous_commit') = 'off' then
        perform eventsieve.commit_durably();
    end if;
    insert into eventsieve.batches (batch, flush_id, received_at, owner, lease_until, published_at)
    select l.xid_offset + pg_current_xact_id()::text::bigint, p_flush_id, now(), p_owner, now() + p_lease,
           case when p_owner is null then now() end
    from eventsieve.log l
    where l.server_started_at = pg_postmaster_start_time() and l.log_oid = l.tableoid
    on conflict (flush_id) do nothing
    returning batches.batch, batches.received_at into batch, received_at;
    if found then
        v_is_repeated := false;
    else
        select b.batch, b.received_at, b.is_repeated
        into strict batch, received_at, v_is_repeated
        from eventsieve.find_or_begin_batch(p_flush_id, p_owner, p_lease) b;
    end if;

    if v_is_repeated then
        -- What the earlier attempt stored carries its batch.
        select array_agg(e.position) into v_stored from eventsieve.events e where e.batch = append.batch;
    else
        with stored as (
            insert into eventsieve.events
                (topic, event_id, occurred_at, source, payload, headers, received_at, batch, position)
            select r.topic, r.event_id, r.occurred_at, r.source, r.payload::json, r.headers::json,
                   append.received_at, append.batch, r.position
            from unnest(p_topics, p_event_ids, p_occurred, p_sources, p_payloads, p_positions, p_headers)
                as r(topic, event_id, occurred_at, source, payload, position, headers)
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
                from eventsieve.events e
                where e.topic = r.topic and e.event_id = r.event_id
                offset 0
            ) f on true
        where s.position is null;
    end if;

    if v_is_repeated then
        return;
    end if;

    if v_missed_topics is null then
        insert into eventsieve.topic_counts as c (topic, lane, received, unique_processed, duplicate_dropped, conflicts)
        select t.topic, p_lane, t.received, t.rows, t.received - t.rows, 0
        from unnest(p_count_topics, p_count_received, p_count_rows) as t(topic, received, rows)
        order by t.topic collate "C"
        on conflict (topic, lane) do update set
            received          = c.received + excluded.received,
            unique_processed  = c.unique_processed + excluded.unique_processed,
            duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped;
    else
        insert into eventsieve.topic_counts as c (topic, lane, received, unique_processed, duplicate_dropped, conflicts)
        select t.topic, p_lane, t.received,
               t.rows - coalesce(m.rows, 0),
               t.received - t.rows + coalesce(m.rows, 0),
               coalesce(m.conflicts, 0)
        from unnest(p_count_topics, p_count_received, p_count_rows) as t(topic, received, rows)
            left join (
                select topic, count(*) as rows, sum(copies) filter (where conflict) as conflicts
                from unnest(v_missed_topics, v_missed_copies, append.conflicts) as x(topic, copies, conflict)
                group by topic
            ) m on m.topic = t.topic
        order by t.topic collate "C"
        on conflict (topic, lane) do update set
            received          = c.received + excluded.received,
            unique_processed  = c.unique_processed + excluded.unique_processed,
            duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
            conflicts         = c.conflicts + excluded.conflicts;
    end if;

    if v_stored is null then
        -- A batch that stored nothing has nothing to publish.
        update eventsieve.batches b set published_at = append.received_at
        where b.batch = append.batch and b.published_at is null;
    end if;
end
$$;

-- The flush of a single row, which is at position 0 of its batch and stands for p_copies events. Out: whether it was stored; if
-- not, its first copy's place and time (null when that was pruned a moment ago), and whether its payload is another value.
create function eventsieve.append_row(
    p_flush_id uuid, p_lane integer, p_owner uuid, p_lease interval,
    p_topic text, p_event_id text, p_occurred timestamptz, p_source text, p_payload text, p_copies integer,
    p_headers text default null,
    out batch bigint, out received_at timestamptz, out is_stored boolean,
    out first_batch bigint, out first_position integer, out first_received timestamptz, out is_conflict boolean
) language plpgsql volatile
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_is_repeated boolean;
begin
    if current_setting('synchronous_commit') = 'off' then
        perform eventsieve.commit_durably();
    end if;
    insert into eventsieve.batches (batch, flush_id, received_at, owner, lease_until, published_at)
    select l.xid_offset + pg_current_xact_id()::text::bigint, p_flush_id, now(), p_owner, now() + p_lease,
           case when p_owner is null then now() end
    from eventsieve.log l
    where l.server_started_at = pg_postmaster_start_time() and l.log_oid = l.tableoid
    on conflict (flush_id) do nothing
    returning batches.batch, batches.received_at into batch, received_at;
    if found then
        v_is_repeated := false;
    else
        select b.batch, b.received_at, b.is_repeated
        into strict batch, received_at, v_is_repeated
        from eventsieve.find_or_begin_batch(p_flush_id, p_owner, p_lease) b;
    end if;

    if not v_is_repeated then
        insert into eventsieve.events
            (topic, event_id, occurred_at, source, payload, headers, received_at, batch, position)
        values
            (p_topic, p_event_id, p_occurred, p_source, p_payload::json, p_headers::json,
             append_row.received_at, append_row.batch, 0)
        on conflict (topic, event_id) do nothing;
        is_stored := found;
    end if;

    if v_is_repeated or not is_stored then
        select e.batch, e.position, e.received_at,
               case when e.payload::text = p_payload then false
                    else e.payload::jsonb <> p_payload::jsonb end
        into first_batch, first_position, first_received, is_conflict
        from eventsieve.events e
        where e.topic = p_topic and e.event_id = p_event_id;
        is_conflict := coalesce(is_conflict, false);
    end if;

    if v_is_repeated then
        -- What the earlier attempt stored carries its batch.
        is_stored := coalesce(first_batch = append_row.batch, false);
        return;
    end if;

    insert into eventsieve.topic_counts as c (topic, lane, received, unique_processed, duplicate_dropped, conflicts)
    values (p_topic, p_lane, p_copies, is_stored::integer, p_copies - is_stored::integer,
            case when is_conflict then p_copies else 0 end)
    on conflict (topic, lane) do update set
        received          = c.received + excluded.received,
        unique_processed  = c.unique_processed + excluded.unique_processed,
        duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
        conflicts         = c.conflicts + excluded.conflicts;

    if not is_stored then
        -- A batch that stored nothing has nothing to publish.
        update eventsieve.batches b set published_at = append_row.received_at
        where b.batch = append_row.batch and b.published_at is null;
    end if;
end
$$;
