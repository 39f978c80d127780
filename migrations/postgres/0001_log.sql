-- The log: every identity once, every event once, the ledger of flushes, exact counters, and where the log stands. Every name is
-- qualified, because a pooler may give a statement to a session of its own, with any search_path.
--
-- shard is 0 everywhere. It stands last in each key, where a log that is spread over several servers will need it.

-- One row. A batch's number is xid_offset + the id of the transaction that stored it, so that numbers rise in the order in which
-- transactions begin to write. high_water is the highest number of which no other trace is left: a batch whose row was pruned
-- from the ledger, or the number at which the numbering began anew (prepare_numbers below).
--
-- previous_offset, switch_xid: xid_offset also rises where a partition ends (begin_partition below). Flushes that are under way then
-- still use previous_offset; their transaction ids lie below switch_xid. Null: it is not known yet below which.
--
-- partitioned_below: numbers below it have a partition.
--
-- server_started_at and log_oid say for which start of the server, and for which table, xid_offset was made. After a restart, a
-- promotion, or a restore of any kind they differ from those of the server that is asked.
--
-- pruned_to_*: the newest event that has expired. Whoever reads on from a cursor before it has missed something.
-- identities_forgotten: how many identities have expired.
create table eventsieve.log (
    shard                integer not null default 0,
    xid_offset           bigint  not null default 0,
    previous_offset      bigint  not null default 0,
    switch_xid           bigint  default 0,
    high_water           bigint  not null default 0,
    partitioned_below    bigint  not null default 0,
    server_started_at    timestamptz,
    log_oid              oid,
    pruned_to_batch      bigint  not null default 0,
    pruned_to_position   integer not null default 0,
    identities_forgotten bigint  not null default 0,
    constraint log_pkey primary key (shard)
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

-- Who has been here: it outlives the event, so that an event that comes again is a duplicate also when its first copy has expired.
-- key: the first 16 bytes of SHA-256 of topic, 0x00 and event_id, byte for byte, so that no sort order of the database plays a part.
-- digest: the first 8 bytes of SHA-256 of the payload's canonical JSON value, made by the service.
create table eventsieve.identities (
    key         uuid        not null,
    batch       bigint      not null,
    received_at timestamptz not null,
    digest      bigint      not null,
    position    integer     not null,
    shard       integer     not null default 0,
    constraint identities_pkey primary key (key, shard)
);

-- The events, in the order of the log, in partitions by number: whole partitions expire, and what is read in order is read from one
-- partition after the other. The payload is json, not jsonb: it comes back as it was sent, and so do the headers.
create table eventsieve.events (
    batch       bigint           not null,
    occurred_at timestamptz      not null,
    received_at timestamptz      not null,
    position    integer          not null,
    shard       integer          not null default 0,
    topic       text collate "C" not null,
    event_id    text collate "C" not null,
    source      text             not null,
    payload     json             not null,
    headers     json,
    constraint events_pkey primary key (batch, position, shard)
) partition by range (batch);
create index events_topic_log_idx on eventsieve.events (topic, batch, position, shard);

-- The partitions: numbers from first_batch to below before_batch. The last one takes what is stored now; the others have ended.
-- decision: what was last decided about its topics, by which nothing is done twice. held_back: events that should have expired, but
-- are not published yet. copy_name: the table that will take its place. archived_as: it was archived as a whole, under the name of
-- this manifest.
create table eventsieve.partitions (
    first_batch     bigint      not null,
    before_batch    bigint      not null,
    table_name      text        not null,
    begun_at        timestamptz not null,
    ended_at        timestamptz,
    decision        text        not null default '',
    held_back       bigint      not null default 0,
    copy_name       text,
    archived_as     text,
    constraint partitions_pkey primary key (first_batch),
    constraint partitions_order_check check (first_batch < before_batch)
);

-- What was archived, also when its partition is gone.
create table eventsieve.archives (
    first_batch  bigint      not null,
    before_batch bigint      not null,
    manifest     text        not null,
    events       bigint      not null,
    archived_at  timestamptz not null,
    constraint archives_pkey primary key (first_batch)
);

-- While a partition is exchanged: how many of its events go, and the newest of them.
create table eventsieve.expiring (
    first_batch bigint           not null,
    topic       text collate "C" not null,
    events      bigint           not null,
    last        bigint[]         not null,
    constraint expiring_pkey primary key (first_batch, topic)
);

-- The ledger: a row for each flush. The unique flush_id proves to a retry that its first attempt committed. The same row
-- is the outbox: unpublished until the sink has its events; owner and lease_until say who is on it.
create table eventsieve.batches (
    batch        bigint      not null,
    received_at  timestamptz not null,
    flush_id     uuid        not null,
    owner        uuid,
    lease_until  timestamptz,
    published_at timestamptz,
    shard        integer     not null default 0,
    constraint batches_pkey primary key (batch, shard),
    constraint batches_flush_id_key unique (flush_id, shard)
);
-- What is to be claimed, in the order in which it is claimed.
create index batches_unpublished_idx on eventsieve.batches (batch) where published_at is null;

-- Exact counters, changed in the transaction that stores the events. Several lanes of a topic, so that writers seldom wait for
-- each other's row; half-filled pages, so that an update stays on its page (HOT). first_/last_received_at: of stored events.
-- pruned: how many have expired. pruned_to_*: the newest of them.
create table eventsieve.topic_counts (
    topic              text collate "C" not null,
    lane               integer          not null,
    shard              integer          not null default 0,
    received           bigint           not null,
    unique_processed   bigint           not null,
    duplicate_dropped  bigint           not null,
    conflicts          bigint           not null,
    pruned             bigint           not null default 0,
    first_received_at  timestamptz,
    last_received_at   timestamptz,
    pruned_to_batch    bigint           not null default 0,
    pruned_to_position integer          not null default 0,
    constraint topic_counts_pkey primary key (topic, lane, shard),
    constraint topic_counts_sum_check check (received = unique_processed + duplicate_dropped)
) with (fillfactor = 50);

-- The topics that have counters: of two flushes that bring the same new one, one adds it.
create table eventsieve.topics (
    topic text collate "C" not null,
    constraint topics_pkey primary key (topic)
);

-- The counters of all topics together, those of forgotten ones included, and how many topics there are: however many these are, to
-- read the totals is to read some rows. A row for each of 256 groups of the server's processes, so that writers seldom wait for each
-- other's; that of group -1 has what expires.
create table eventsieve.totals (
    process_group     integer not null,
    shard             integer not null default 0,
    received          bigint  not null default 0,
    unique_processed  bigint  not null default 0,
    duplicate_dropped bigint  not null default 0,
    conflicts         bigint  not null default 0,
    pruned            bigint  not null default 0,
    topics            bigint  not null default 0,
    constraint totals_pkey primary key (process_group, shard)
) with (fillfactor = 50);

-- Where there are more topics than a list of them has, those that it has: the largest, as of a while ago.
create table eventsieve.largest_topics (
    topic text collate "C" not null,
    constraint largest_topics_pkey primary key (topic)
);

-- One row: the counters of the topics of which nothing was left, neither event nor identity. pruned_to_*: the newest event of them.
create table eventsieve.forgotten_topics (
    shard              integer not null default 0,
    received           bigint  not null default 0,
    unique_processed   bigint  not null default 0,
    duplicate_dropped  bigint  not null default 0,
    conflicts          bigint  not null default 0,
    pruned             bigint  not null default 0,
    pruned_to_batch    bigint  not null default 0,
    pruned_to_position integer not null default 0,
    constraint forgotten_topics_pkey primary key (shard)
);
insert into eventsieve.forgotten_topics default values;

-- Conflicts: what was sent under an identity that has another value. batch, position: the place that it would have had. A payload
-- that is too large is left out. All are counted; of those that come too fast, only so many are kept.
create table eventsieve.conflicts (
    batch          bigint           not null,
    position       integer          not null,
    shard          integer          not null default 0,
    topic          text collate "C" not null,
    event_id       text collate "C" not null,
    first_batch    bigint           not null,
    first_position integer          not null,
    occurred_at    timestamptz      not null,
    received_at    timestamptz      not null,
    source         text             not null,
    payload        json,
    constraint conflicts_pkey primary key (batch, position, shard)
);
create index conflicts_topic_idx on eventsieve.conflicts (topic, batch, position);

-- Dead letters: events that the sink refuses for themselves (it would refuse them again tomorrow, and hold up what comes behind
-- them). The event stays in the log; what is kept here is that the sink is owed it, since when, and what was said. Their batch
-- counts as published, so nothing else in it waits. A row goes when the sink has taken the event after all.
--
-- There is no foreign key: every event that expires would have to look here, and expiry leaves out what is parked.
create table eventsieve.parked (
    batch     bigint           not null,
    position  integer          not null,
    shard     integer          not null default 0,
    topic     text collate "C" not null,
    event_id  text collate "C" not null,
    parked_at timestamptz      not null,
    reason    text             not null,
    constraint parked_pkey primary key (batch, position, shard)
);

-- Who does what only one replica may do at a time.
create table eventsieve.leases (
    name        text collate "C" not null,
    owner       uuid        not null,
    lease_until timestamptz not null,
    constraint leases_pkey primary key (name)
);

-- Where the log stands, in the snapshot of the statement.
--
-- first_unstable: the first number of which a transaction may still be writing. Everything below it has ended. It is not durable:
-- a transaction id that left no trace on disk is given out again after a crash, so no cursor may name it. While a flush may be under
-- way that uses previous_offset, it is counted by that.
-- last_stable: the newest committed batch below it. A commit is visible to others only when it is on disk (and on the standby,
-- where one is waited for), and later numbers are higher, after a crash as well: this is the place for a cursor at the end.
-- newest: the newest number that this log has ever given out.
-- committed_below: every batch that is committed in this snapshot has a lower number.
-- visibility_lag_seconds: never 0 while a batch waits, whatever happened to the clock.
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
           select greatest(extract(epoch from clock_timestamp() - b.received_at), 0.001)
           from eventsieve.batches b
           where b.batch >= e.first_unstable
           order by b.batch
           limit 1
       ), 0)::float8 as visibility_lag_seconds
from (
    select l.high_water,
           case when pg_snapshot_xmin(pg_current_snapshot())::text::bigint > l.switch_xid then l.xid_offset
                else l.previous_offset end + pg_snapshot_xmin(pg_current_snapshot())::text::bigint as first_unstable,
           l.xid_offset + pg_snapshot_xmax(pg_current_snapshot())::text::bigint as committed_below
    from eventsieve.log l
) e;

-- Whether events behind a cursor are gone, of one topic or (null) of any: expired, or lost with the copy of the log that gave the
-- cursor out. A cursor in a gap names a batch that this log does not have.
create function eventsieve.is_truncated(p_batch bigint, p_position integer, p_topic text) returns boolean language sql stable as $$
    select p_batch > 0 and (
        exists (
            select from eventsieve.log l
            where (l.pruned_to_batch, l.pruned_to_position) > (p_batch, p_position)
        ) and (
            p_topic is null
            or exists (
                select from eventsieve.topic_counts c
                where c.topic = p_topic and (c.pruned_to_batch, c.pruned_to_position) > (p_batch, p_position)
            )
            -- It may be one of those that are forgotten.
            or not exists (select from eventsieve.topics t where t.topic = p_topic)
                and exists (
                    select from eventsieve.forgotten_topics f
                    where (f.pruned_to_batch, f.pruned_to_position) > (p_batch, p_position)
                )
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

-- The number that the numbering begins with at this time: 1024 for each microsecond since 1970. Numbers that were given out earlier are
-- lower, unless more than a billion transactions a second were begun since the last start.
create function eventsieve.number_of_now() returns bigint language sql volatile as $$
    select (extract(epoch from clock_timestamp()) * 1024000000)::bigint
$$;

-- Makes a partition for the numbers from p_first on, and ends those before it. The caller has locked the row of the log.
--
-- A table is made and then attached: that waits for nobody but another schema change, and nobody waits for it. With the rights of
-- the schema's owner, so that the service needs none to make tables.
create function eventsieve.add_partition(p_first bigint) returns void language plpgsql volatile
security definer set search_path = pg_catalog, pg_temp as $$
declare
    -- As many as a quarter of a second has at the clock's pace, so that numbers never run ahead of the clock where partitions end
    -- early; and more than most servers begin transactions in a day. Where they do not last, the next partition follows.
    v_before bigint := p_first + 268435456;
    v_name   text   := 'events_' || p_first;
begin
    execute format('create table eventsieve.%I (like eventsieve.events including defaults including constraints)', v_name);
    execute format(
        'alter table eventsieve.events attach partition eventsieve.%I for values from (%s) to (%s)', v_name, p_first, v_before
    );
    update eventsieve.partitions p set ended_at = now() where p.ended_at is null;
    insert into eventsieve.partitions (first_batch, before_batch, table_name, begun_at)
    values (p_first, v_before, v_name, now());
    update eventsieve.log l set partitioned_below = v_before;
end
$$;

-- Makes the numbering ready for the next flush.
--
-- It begins anew, above every number that may ever have been given out, if this has not happened since the server was
-- started: a server that was restarted, promoted or restored may have lost the newest batches, and their numbers must not come
-- again. Once for each start is more often than needed, and needs no knowledge of what happened. Returns whether it did.
--
-- And it makes the partition of the next number.
--
-- The lock of the row lets one transaction do it; the others wait, and then find it done.
create function eventsieve.prepare_numbers() returns boolean language plpgsql volatile as $$
declare
    v_newest   bigint;
    v_base     bigint;
    v_log      eventsieve.log;
    v_is_anew  boolean := false;
begin
    select l.* into v_log
    from eventsieve.log l
    where l.server_started_at is distinct from pg_postmaster_start_time() or l.log_oid is distinct from l.tableoid
       or l.partitioned_below <= l.xid_offset + pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    for update;
    if not found then
        return false;
    end if;
    perform eventsieve.commit_durably();
    if v_log.server_started_at is distinct from pg_postmaster_start_time()
       or v_log.log_oid is distinct from 'eventsieve.log'::regclass::oid then
        select greatest(
            l.high_water, (select max(b.batch) from eventsieve.batches b), (select max(e.batch) from eventsieve.events e),
            -- Nothing is stored in a partition that has ended.
            (select max(p.first_batch) from eventsieve.partitions p)
        )
        into strict v_newest
        from eventsieve.log l;
        v_base := greatest(v_newest + 1, eventsieve.number_of_now());
        insert into eventsieve.gaps (after_batch, before_batch)
        values (v_newest, v_base)
        on conflict (after_batch) do update set before_batch = greatest(gaps.before_batch, excluded.before_batch);
        -- Every transaction that may still store a batch has an id of xmin or above.
        update eventsieve.log l
        set xid_offset = v_base + 1 - pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
            previous_offset = 0,
            switch_xid = 0,
            high_water = v_base,
            server_started_at = pg_postmaster_start_time(),
            log_oid = l.tableoid
        returning * into v_log;
        v_is_anew := true;
    end if;
    -- The next transaction has the number of xmax, or a lower one if it has begun already. Numbers may have run past more than one.
    if v_is_anew and v_log.partitioned_below < v_base then
        perform eventsieve.add_partition(v_base);
    end if;
    while (
        select l.partitioned_below <= l.xid_offset + pg_snapshot_xmax(pg_current_snapshot())::text::bigint from eventsieve.log l
    ) loop
        perform eventsieve.add_partition((select l.partitioned_below from eventsieve.log l));
    end loop;
    return v_is_anew;
end
$$;

-- Ends the partition that takes what is stored now, if something is in it and it is as old as p_length, and begins the next one:
-- later batches have numbers of that. Returns whether it did.
--
-- Flushes that are under way may have read the earlier offset. Each of them had a transaction id before it read it, so its id is
-- lower than any that is given out after this transaction has committed: finish_switch takes such a one, in a transaction of its
-- own. Until all with lower ids have ended, log_end counts by the earlier offset, and no other partition ends.
create function eventsieve.begin_partition(p_length interval) returns boolean language plpgsql volatile as $$
declare
    v_log     eventsieve.log;
    v_current eventsieve.partitions;
    v_number  bigint;
    v_target  bigint;
    v_now     bigint;
    -- Far more transactions than begin while this one commits: the two offsets never give the same number.
    v_margin  constant bigint := 67108864;
begin
    -- The clock was wrong when these ended.
    update eventsieve.partitions p set ended_at = now() where p.ended_at > now() + interval '1 hour';
    select p.* into v_current from eventsieve.partitions p where p.ended_at is null order by p.first_batch desc limit 1;
    if not found or v_current.begun_at between now() - p_length and now() + interval '1 hour' then
        return false;
    end if;
    select l.* into strict v_log from eventsieve.log l for update;
    if v_log.switch_xid is null or pg_snapshot_xmin(pg_current_snapshot())::text::bigint <= v_log.switch_xid
       or v_log.server_started_at is distinct from pg_postmaster_start_time()
       or v_log.log_oid is distinct from 'eventsieve.log'::regclass::oid then
        return false;
    end if;
    -- Another replica may have done it meanwhile.
    select p.* into strict v_current from eventsieve.partitions p where p.ended_at is null order by p.first_batch desc limit 1;
    if v_current.begun_at between now() - p_length and now() + interval '1 hour' then
        return false;
    end if;
    -- A partition that began in the future began when the clock was wrong. One without events need not end.
    if v_current.begun_at > now() or not exists (select from eventsieve.events e where e.batch >= v_current.first_batch) then
        update eventsieve.partitions p set begun_at = now() where p.first_batch = v_current.first_batch;
        return false;
    end if;
    v_number := v_log.xid_offset + pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    v_now := eventsieve.number_of_now();
    -- Numbers that run ahead of the clock might be given out again after a restore. Where they are ahead by an hour already, the
    -- clock was wrong.
    if v_now < greatest(v_log.partitioned_below, v_number + v_margin) + 268435456 and v_number < v_now + 3600 * 1024000000::bigint then
        return false;
    end if;
    perform eventsieve.commit_durably();
    loop
        select l.partitioned_below into strict v_target from eventsieve.log l;
        perform eventsieve.add_partition(v_target);
        exit when v_target > v_number + v_margin;
    end loop;
    update eventsieve.log l
    set previous_offset = v_log.xid_offset,
        xid_offset = v_target - pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
        switch_xid = null;
    return true;
end
$$;

-- The second half of begin_partition, in a transaction that began after it.
create function eventsieve.finish_switch() returns void language sql volatile as $$
    update eventsieve.log l set switch_xid = pg_current_xact_id()::text::bigint where l.switch_xid is null
$$;

-- The query for the events of a partition's table with what expiry does to each: is_gone, is_held_back (it should go, but is not
-- published yet). $1, $2: patterns (of like), and whether what matches expires; the first that a topic matches decides, and $3 where
-- none does. $4: only events received before this time (null: at any time).
create function eventsieve.expiry_query(p_table text) returns text language sql immutable as $$
    select format($q$
        select e.*, x.is_old and not x.is_held as is_gone, x.is_old and x.is_held as is_held_back
        from eventsieve.%I e
            cross join lateral (
                select ($4 is null or e.received_at < $4)
                       and coalesce((
                           select r.is_expired
                           from unnest($1, $2) with ordinality as r(pattern, is_expired, number)
                           where e.topic like r.pattern
                           order by r.number
                           limit 1
                       ), $3) as is_old,
                       exists (select from eventsieve.batches b where b.batch = e.batch and b.published_at is null)
                           or exists (select from eventsieve.parked k where k.batch = e.batch and k.position = e.position) as is_held
                offset 0
            ) x
    $q$, p_table)
$$;

-- How many events of a partition expiry would remove, hold back and leave. is_stable: whether nothing can be stored in it any more.
-- Takes no lock and no transaction id.
create function eventsieve.count_expired(
    p_first_batch bigint, p_patterns text[], p_are_expired boolean[], p_is_expired boolean, p_before timestamptz,
    out removed bigint, out held_back bigint, out left_over bigint, out is_stable boolean, out table_name text, out bytes bigint
) language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
    select p.table_name, p.ended_at is not null and (select e.first_unstable >= p.before_batch from eventsieve.log_end e)
    into table_name, is_stable
    from eventsieve.partitions p
    where p.first_batch = p_first_batch;
    if table_name is null then
        return;
    end if;
    bytes := pg_total_relation_size(format('eventsieve.%I', table_name)::regclass);
    execute format(
        'select count(*) filter (where s.is_gone), count(*) filter (where s.is_held_back), count(*) filter (where not s.is_gone) from (%s) s',
        eventsieve.expiry_query(table_name)
    )
    into removed, held_back, left_over
    using p_patterns, p_are_expired, p_is_expired, p_before;
end
$$;

-- The partition, if it still has this table and this copy: a process that has slept through the end of its lease must not go on with
-- what another one has begun.
create function eventsieve.expiring_partition(p_first_batch bigint, p_table text, p_copy text) returns eventsieve.partitions
language plpgsql volatile as $$
declare
    v_part eventsieve.partitions;
begin
    select p.* into v_part from eventsieve.partitions p where p.first_batch = p_first_batch;
    if v_part.table_name is distinct from p_table or v_part.copy_name is distinct from p_copy then
        raise exception 'another process is removing events from the partition %', p_table using errcode = 'object_not_in_prerequisite_state';
    end if;
    return v_part;
end
$$;

-- Forgets the copy of an earlier attempt, and makes an empty table for what stays, if something does. Returns its name.
create function eventsieve.begin_copy(p_first_batch bigint, p_table text, p_stays boolean) returns text language plpgsql volatile
security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_part eventsieve.partitions;
    v_copy text;
begin
    perform from eventsieve.partitions p where p.first_batch = p_first_batch for update;
    select p.copy_name into v_copy from eventsieve.partitions p where p.first_batch = p_first_batch;
    v_part := eventsieve.expiring_partition(p_first_batch, p_table, v_copy);
    if v_copy is not null then
        execute format('drop table eventsieve.%I', v_copy);
        v_copy := null;
    end if;
    if p_stays then
        v_copy := 'events_' || v_part.first_batch || '_' || pg_current_xact_id()::text;
        -- Vacuum would stand in the way of the exchange.
        execute format(
            'create table eventsieve.%I (like eventsieve.events including defaults including constraints including indexes,
                 constraint partition_check check (batch >= %s and batch < %s)) with (autovacuum_enabled = false)',
            v_copy, v_part.first_batch, v_part.before_batch
        );
    end if;
    update eventsieve.partitions p set copy_name = v_copy where p.first_batch = p_first_batch;
    return v_copy;
end
$$;

-- Copies what stays of the next p_limit events behind a place. Out: the last of them; null at the end. In small steps, because a
-- transaction that writes holds back what cursor reads may see.
create function eventsieve.copy_kept(
    p_first_batch bigint, p_patterns text[], p_are_expired boolean[], p_is_expired boolean, p_before timestamptz,
    p_table text, p_copy text, p_batch bigint, p_position integer, p_limit bigint, out last_batch bigint, out last_position integer
) language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_part eventsieve.partitions := eventsieve.expiring_partition(p_first_batch, p_table, p_copy);
begin
    execute format($q$
        with page as materialized (
            select s.*
            from (%s) s
            where (s.batch, s.position) > ($5, $6)
            order by s.batch, s.position
            limit $7
        ), copied as (
            insert into eventsieve.%I (batch, occurred_at, received_at, position, shard, topic, event_id, source, payload, headers)
            select batch, occurred_at, received_at, position, shard, topic, event_id, source, payload, headers
            from page
            where not is_gone
        )
        select batch, position from page order by batch desc, position desc limit 1
    $q$, eventsieve.expiry_query(v_part.table_name), v_part.copy_name)
    into last_batch, last_position
    using p_patterns, p_are_expired, p_is_expired, p_before, p_batch, p_position, p_limit;
end
$$;

-- Notes for each topic how many events of a partition go, and the newest of them: those that are not in its copy. Returns their number.
-- All of it is counted before anything is written, because a transaction that has written holds back cursor reads.
create function eventsieve.count_copied(p_first_batch bigint, p_table text, p_copy text) returns bigint language plpgsql volatile
security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_part    eventsieve.partitions := eventsieve.expiring_partition(p_first_batch, p_table, p_copy);
    v_kept    text;
    v_topics  text[];
    v_events  bigint[];
    v_batches bigint[];
    v_places  bigint[];
begin
    v_kept := case when v_part.copy_name is null then ''
        else format(' where not exists (select from eventsieve.%I k where k.batch = e.batch and k.position = e.position)', v_part.copy_name)
    end;
    execute format(
        'select array_agg(topic), array_agg(events), array_agg(last[1]), array_agg(last[2])
         from (
             select e.topic, count(*) as events, max(array[e.batch, e.position::bigint]) as last from eventsieve.%I e%s group by e.topic
         ) t',
        v_part.table_name, v_kept
    )
    into v_topics, v_events, v_batches, v_places;
    delete from eventsieve.expiring x where x.first_batch = p_first_batch;
    insert into eventsieve.expiring (first_batch, topic, events, last)
    select p_first_batch, t.topic, t.events, array[t.batch, t.place]
    from unnest(v_topics, v_events, v_batches, v_places) as t(topic, events, batch, place);
    return (select coalesce(sum(x.events), 0)::bigint from eventsieve.expiring x where x.first_batch = p_first_batch);
end
$$;

-- Puts the copy of a partition in its place, or nothing, and counts what is gone: in one transaction. Only this locks others out. It
-- waits for a twentieth of a second for those who are reading, and then fails: so nobody waits for longer.
create function eventsieve.exchange_partition(p_first_batch bigint, p_table text, p_copy text, p_decision text, p_held_back bigint)
returns void language plpgsql volatile
security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    v_part    eventsieve.partitions;
    v_last    bigint[];
    v_is_owed boolean;
begin
    perform eventsieve.commit_durably();
    perform from eventsieve.partitions p where p.first_batch = p_first_batch for update;
    v_part := eventsieve.expiring_partition(p_first_batch, p_table, p_copy);
    if v_part.ended_at is null or not (select e.first_unstable >= v_part.before_batch from eventsieve.log_end e) then
        raise exception 'the partition % has not ended', p_table using errcode = 'object_not_in_prerequisite_state';
    end if;
    perform from eventsieve.log l for update;
    lock table only eventsieve.events in access exclusive mode;
    execute format('lock table eventsieve.%I in access exclusive mode nowait', p_table);
    if p_copy is not null then
        execute format('lock table eventsieve.%I in access exclusive mode nowait', p_copy);
    end if;
    -- An event that became a dead letter after it was counted.
    execute format(
        'select exists (select from eventsieve.parked k where k.batch >= $1 and k.batch < $2%s)',
        case when p_copy is null then ''
            else format(' and not exists (select from eventsieve.%I e where e.batch = k.batch and e.position = k.position)', p_copy) end
    )
    into v_is_owed
    using v_part.first_batch, v_part.before_batch;
    if v_is_owed then
        raise exception 'an event of the partition % has become a dead letter', p_table using errcode = 'object_not_in_prerequisite_state';
    end if;
    execute format('alter table eventsieve.events detach partition eventsieve.%I', p_table);
    if p_copy is null then
        delete from eventsieve.partitions p where p.first_batch = p_first_batch;
    else
        execute format(
            'alter table eventsieve.events attach partition eventsieve.%I for values from (%s) to (%s)',
            p_copy, v_part.first_batch, v_part.before_batch
        );
        execute format('alter table eventsieve.%I drop constraint partition_check, reset (autovacuum_enabled)', p_copy);
        update eventsieve.partitions p
        set table_name = p.copy_name, copy_name = null, decision = coalesce(p_decision, p.decision),
            held_back = coalesce(p_held_back, p.held_back)
        where p.first_batch = p_first_batch;
    end if;
    execute format('drop table eventsieve.%I', p_table);
    with gone as (
        delete from eventsieve.expiring x where x.first_batch = p_first_batch returning x.topic, x.events, x.last
    ), counted as (
        insert into eventsieve.topic_counts as c
            (topic, lane, received, unique_processed, duplicate_dropped, conflicts, pruned, pruned_to_batch, pruned_to_position)
        select g.topic, 0, 0, 0, 0, 0, g.events, g.last[1], g.last[2]
        from gone g
        order by g.topic
        on conflict (topic, lane, shard) do update set
            pruned             = c.pruned + excluded.pruned,
            pruned_to_batch    = case when (excluded.pruned_to_batch, excluded.pruned_to_position) > (c.pruned_to_batch, c.pruned_to_position)
                                      then excluded.pruned_to_batch else c.pruned_to_batch end,
            pruned_to_position = case when (excluded.pruned_to_batch, excluded.pruned_to_position) > (c.pruned_to_batch, c.pruned_to_position)
                                      then excluded.pruned_to_position else c.pruned_to_position end
    ), summed as (
        insert into eventsieve.totals as t (process_group, pruned)
        select -1, coalesce(sum(g.events), 0)
        from gone g
        on conflict (process_group, shard) do update set pruned = t.pruned + excluded.pruned
    )
    select max(g.last) into v_last from gone g;
    update eventsieve.log l
    set pruned_to_batch = v_last[1], pruned_to_position = v_last[2]
    where (v_last[1], v_last[2]) > (l.pruned_to_batch, l.pruned_to_position);
end
$$;

-- Forgets identities that were received before a time, of the table's blocks from p_block to below p_end, but none whose event is still
-- there. Returns how many. By blocks, because an index for it would cost each event more than a pass over the table now and then.
create function eventsieve.forget_identities(p_before timestamptz, p_block bigint, p_end bigint) returns bigint language sql volatile as $$
    with gone as (
        delete from eventsieve.identities i
        where i.ctid >= format('(%s,0)', p_block)::tid and i.ctid < format('(%s,0)', p_end)::tid
          and i.received_at < p_before
          and not exists (select from eventsieve.events e where e.batch = i.batch and e.position = i.position)
        returning 1
    ), counted as (
        update eventsieve.log l set identities_forgotten = l.identities_forgotten + g.count
        from (select count(*) from gone) g
        where g.count > 0
    )
    select count(*) from gone
$$;

-- Forgets some of the topics behind p_after (by name) of which nothing is left: every event has expired, and so has every identity, which
-- are those received before p_before. Their counters stay in the totals. Out: the last topic that was looked at; null at the end.
--
-- First the row of a topic is locked, then its counters: a flush that adds to them waits, and then makes both anew. A flush locks them
-- the other way round; where the two meet, this one gives way.
create function eventsieve.forget_topics(p_before timestamptz, p_after text, p_limit bigint, out last_topic text, out forgotten bigint)
language plpgsql volatile set lock_timeout = '50ms' as $$
declare
    v_topics text[];
begin
    select max(t.topic), array_agg(t.topic) filter (where t.is_empty) into last_topic, v_topics
    from (
        select c.topic,
               sum(c.unique_processed) = sum(c.pruned) and coalesce(max(c.last_received_at) < p_before, true) as is_empty
        from eventsieve.topic_counts c
        where c.topic > p_after
        group by c.topic
        order by c.topic
        limit p_limit
    ) t;
    forgotten := 0;
    if v_topics is null then
        return;
    end if;
    perform from eventsieve.topics t where t.topic = any (v_topics) order by t.topic for update;
    perform from eventsieve.topic_counts c where c.topic = any (v_topics) order by c.topic, c.lane, c.shard for update;
    -- Others may have written since; now they cannot.
    with empty as (
        select c.topic
        from eventsieve.topic_counts c
        where c.topic = any (v_topics)
        group by c.topic
        having sum(c.unique_processed) = sum(c.pruned) and coalesce(max(c.last_received_at) < p_before, true)
    ), gone as (
        delete from eventsieve.topic_counts c using empty e where c.topic = e.topic
        returning c.received, c.unique_processed, c.duplicate_dropped, c.conflicts, c.pruned, array[c.pruned_to_batch, c.pruned_to_position] as last
    ), kept as (
        update eventsieve.forgotten_topics f
        set received           = f.received + g.received,
            unique_processed   = f.unique_processed + g.unique_processed,
            duplicate_dropped  = f.duplicate_dropped + g.duplicate_dropped,
            conflicts          = f.conflicts + g.conflicts,
            pruned             = f.pruned + g.pruned,
            pruned_to_batch    = case when g.last > array[f.pruned_to_batch, f.pruned_to_position] then g.last[1] else f.pruned_to_batch end,
            pruned_to_position = case when g.last > array[f.pruned_to_batch, f.pruned_to_position] then g.last[2] else f.pruned_to_position end
        from (
            select sum(received)::bigint as received, sum(unique_processed)::bigint as unique_processed,
                   sum(duplicate_dropped)::bigint as duplicate_dropped, sum(conflicts)::bigint as conflicts,
                   sum(pruned)::bigint as pruned, max(last) as last
            from gone
        ) g
        where g.last is not null
    ), removed as (
        delete from eventsieve.topics t using empty e where t.topic = e.topic returning 1
    ), summed as (
        insert into eventsieve.totals as t (process_group, topics)
        select -1, -count(*)
        from removed
        on conflict (process_group, shard) do update set topics = t.topics + excluded.topics
    )
    select count(*) into forgotten from removed;
end
$$;

-- The largest topics are now these.
create function eventsieve.set_largest_topics(p_topics text[]) returns void language sql volatile as $$
    delete from eventsieve.largest_topics l where l.topic <> all (p_topics);
    insert into eventsieve.largest_topics (topic) select unnest(p_topics) on conflict (topic) do nothing
$$;

-- Adds topics that have got their first counters in a lane, and returns how many of them are new. One that is there is locked, so that it
-- cannot be forgotten at the same time.
create function eventsieve.add_topics(p_topics text[]) returns bigint language sql volatile as $$
    with added as (
        insert into eventsieve.topics as t (topic)
        select n.topic
        from unnest(p_topics) as n(topic)
        order by n.topic collate "C"
        on conflict (topic) do update set topic = excluded.topic
        returning xmax = 0 as is_new
    )
    select count(*) filter (where a.is_new) from added a
$$;

-- Adds to the totals. In the group of this process: that of another seldom adds to the same row.
create function eventsieve.add_to_totals(p_received bigint, p_stored bigint, p_conflicts bigint, p_new_topics text[]) returns void
language plpgsql volatile as $$
begin
    insert into eventsieve.totals as t (process_group, received, unique_processed, duplicate_dropped, conflicts, topics)
    values (pg_backend_pid() % 256, p_received, p_stored, p_received - p_stored, p_conflicts,
            case when p_new_topics is null then 0 else eventsieve.add_topics(p_new_topics) end)
    on conflict (process_group, shard) do update set
        received          = t.received + excluded.received,
        unique_processed  = t.unique_processed + excluded.unique_processed,
        duplicate_dropped = t.duplicate_dropped + excluded.duplicate_dropped,
        conflicts         = t.conflicts + excluded.conflicts,
        topics            = t.topics + excluded.topics;
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
-- the last flush, or the numbers have run out of partitions.
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
        perform eventsieve.prepare_numbers();
        insert into eventsieve.batches (batch, flush_id, received_at, owner, lease_until, published_at)
        select l.xid_offset + pg_current_xact_id()::text::bigint, p_flush_id, now(), p_owner, now() + p_lease,
               case when p_owner is null then now() end
        from eventsieve.log l
        on conflict (flush_id, shard) do nothing
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
-- has any. Keys and digests are those of the table identities.
--
-- Out: the batch, and for each row that was not stored (missed) its position, its first copy's place and time, and whether its
-- payload is another value.
--
-- The transaction has an id before it reads the offset: begin_partition relies on that.
--
-- Each query of a function is started anew whenever it is called, and the fewer nodes its plan has the faster that is:
-- - Where every row is stored, there is nothing to subtract from the counters.
-- - A single row has a function of its own, append_row: nothing to unnest, no arrays to take apart.
create function eventsieve.append(
    p_flush_id uuid, p_lane integer, p_owner uuid, p_lease interval,
    p_topics text[], p_event_ids text[], p_occurred timestamptz[], p_sources text[], p_payloads text[],
    p_positions integer[], p_copies integer[],
    p_count_topics text[], p_count_received bigint[], p_count_rows bigint[], p_digests bigint[], p_keys uuid[],
    p_headers text[] default null,
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
    v_xid           bigint := pg_current_xact_id()::text::bigint;
    v_stored        integer[];
    v_missed_topics text[];
    v_missed_copies integer[];
    v_is_repeated   boolean;
    v_new_topics    text[];
    v_conflicts     bigint := 0;
begin
    if current_setting('synchronous_commit') = 'off' then
        perform eventsieve.commit_durably();
    end if;
    insert into eventsieve.batches (batch, flush_id, received_at, owner, lease_until, published_at)
    select l.xid_offset + v_xid, p_flush_id, now(), p_owner, now() + p_lease,
           case when p_owner is null then now() end
    from eventsieve.log l
    where l.server_started_at = pg_postmaster_start_time() and l.log_oid = l.tableoid
      and l.partitioned_below > l.xid_offset + v_xid
    on conflict (flush_id, shard) do nothing
    returning batches.batch, batches.received_at into batch, received_at;
    if found then
        v_is_repeated := false;
    else
        select b.batch, b.received_at, b.is_repeated
        into strict batch, received_at, v_is_repeated
        from eventsieve.find_or_begin_batch(p_flush_id, p_owner, p_lease) b;
    end if;

    if v_is_repeated then
        -- What the earlier attempt stored has its identity, also if it has expired meanwhile.
        select array_agg(r.position) into v_stored
        from unnest(p_keys, p_positions) as r(key, position)
            cross join lateral (
                select from eventsieve.identities i
                where i.key = r.key and i.batch = append.batch and i.position = r.position
                offset 0
            ) i;
    else
        with stored as (
            insert into eventsieve.identities (key, batch, received_at, digest, position)
            select r.key, append.batch, append.received_at, r.digest, r.position
            from unnest(p_keys, p_digests, p_positions) as r(key, digest, position)
            on conflict (key, shard) do nothing
            returning position
        ), kept as (
            insert into eventsieve.events
                (batch, occurred_at, received_at, position, topic, event_id, source, payload, headers)
            select append.batch, r.occurred_at, append.received_at, r.position, r.topic, r.event_id, r.source,
                   r.payload::json, r.headers::json
            from unnest(p_topics, p_event_ids, p_occurred, p_sources, p_payloads, p_positions, p_headers)
                as r(topic, event_id, occurred_at, source, payload, position, headers)
            where r.position in (select stored.position from stored)
        )
        select array_agg(stored.position) into v_stored from stored;
    end if;

    -- First copies, by primary key for each row; "offset 0" keeps the planner from turning the look-up into a join.
    if coalesce(cardinality(v_stored), 0) < cardinality(p_positions) then
        select array_agg(r.position), array_agg(f.batch), array_agg(f.position), array_agg(f.received_at),
               array_agg(f.digest <> r.digest), array_agg(r.topic), array_agg(r.copies)
        into missed, first_batches, first_positions, first_received, conflicts, v_missed_topics, v_missed_copies
        from unnest(p_topics, p_positions, p_copies, p_digests, p_keys) as r(topic, position, copies, digest, key)
            left join unnest(v_stored) as s(position) on s.position = r.position
            left join lateral (
                select i.batch, i.position, i.received_at, i.digest
                from eventsieve.identities i
                where i.key = r.key
                offset 0
            ) f on true
        where s.position is null;
        if array_position(first_batches, null) is not null then
            raise exception 'an identity of flush % has just expired', p_flush_id using errcode = 'serialization_failure';
        end if;
    end if;

    if v_is_repeated then
        return;
    end if;

    -- A row whose xmax is 0 was inserted and not updated.
    if v_missed_topics is null then
        with counted as (
            insert into eventsieve.topic_counts as c
                (topic, lane, received, unique_processed, duplicate_dropped, conflicts, first_received_at, last_received_at)
            select t.topic, p_lane, t.received, t.rows, t.received - t.rows, 0, append.received_at, append.received_at
            from unnest(p_count_topics, p_count_received, p_count_rows) as t(topic, received, rows)
            order by t.topic collate "C"
            on conflict (topic, lane, shard) do update set
                received          = c.received + excluded.received,
                unique_processed  = c.unique_processed + excluded.unique_processed,
                duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
                first_received_at = coalesce(c.first_received_at, excluded.first_received_at),
                last_received_at  = greatest(c.last_received_at, excluded.last_received_at)
            returning case when xmax = 0 then topic end as new_topic
        )
        select array_agg(new_topic) filter (where new_topic is not null) into v_new_topics from counted;
    else
        with counted as (
            insert into eventsieve.topic_counts as c
                (topic, lane, received, unique_processed, duplicate_dropped, conflicts, first_received_at, last_received_at)
            select t.topic, p_lane, t.received,
                   t.rows - coalesce(m.rows, 0),
                   t.received - t.rows + coalesce(m.rows, 0),
                   coalesce(m.conflicts, 0),
                   x.received_at, x.received_at
            from unnest(p_count_topics, p_count_received, p_count_rows) as t(topic, received, rows)
                left join (
                    select topic, count(*) as rows, sum(copies) filter (where conflict) as conflicts
                    from unnest(v_missed_topics, v_missed_copies, append.conflicts) as x(topic, copies, conflict)
                    group by topic
                ) m on m.topic = t.topic
                cross join lateral (select case when t.rows > coalesce(m.rows, 0) then append.received_at end as received_at) x
            order by t.topic collate "C"
            on conflict (topic, lane, shard) do update set
                received          = c.received + excluded.received,
                unique_processed  = c.unique_processed + excluded.unique_processed,
                duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
                conflicts         = c.conflicts + excluded.conflicts,
                first_received_at = coalesce(c.first_received_at, excluded.first_received_at),
                last_received_at  = greatest(c.last_received_at, excluded.last_received_at)
            returning case when xmax = 0 then topic end as new_topic
        )
        select array_agg(new_topic) filter (where new_topic is not null) into v_new_topics from counted;
        select coalesce(sum(x.copies) filter (where x.conflict), 0) into v_conflicts
        from unnest(v_missed_copies, append.conflicts) as x(copies, conflict);
        if true = any (append.conflicts) then
            insert into eventsieve.conflicts
                (batch, position, topic, event_id, first_batch, first_position, occurred_at, received_at, source, payload)
            select append.batch, r.position, r.topic, r.event_id, m.first_batch, m.first_position, r.occurred_at, append.received_at,
                   r.source, case when octet_length(r.payload) <= 16384 then r.payload::json end
            from unnest(append.missed, append.first_batches, append.first_positions, append.conflicts)
                    as m(position, first_batch, first_position, conflict)
                join unnest(p_topics, p_event_ids, p_occurred, p_sources, p_payloads, p_positions)
                    as r(topic, event_id, occurred_at, source, payload, position) on r.position = m.position
            where m.conflict
            order by r.position
            limit eventsieve.conflicts_left();
        end if;
    end if;

    perform eventsieve.add_to_totals(
        coalesce((select sum(r)::bigint from unnest(p_count_received) as r), 0), coalesce(cardinality(v_stored), 0), v_conflicts, v_new_topics
    );

    if v_stored is null then
        -- A batch that stored nothing has nothing to publish.
        update eventsieve.batches b set published_at = append.received_at
        where b.batch = append.batch and b.published_at is null;
    end if;
end
$$;

-- How many conflicts may still be kept: a thousand in the minute before now.
create function eventsieve.conflicts_left() returns bigint language sql stable as $$
    select 1000 - count(*)
    from (select c.received_at from eventsieve.conflicts c order by c.batch desc, c.position desc limit 1000) c
    where c.received_at > now() - interval '1 minute'
$$;

-- The flush of a single row, which is at position 0 of its batch and stands for p_copies events. Out: whether it was stored; if
-- not, its first copy's place and time, and whether its payload is another value.
create function eventsieve.append_row(
    p_flush_id uuid, p_lane integer, p_owner uuid, p_lease interval,
    p_topic text, p_event_id text, p_occurred timestamptz, p_source text, p_payload text, p_copies integer,
    p_digest bigint, p_key uuid, p_headers text default null,
    out batch bigint, out received_at timestamptz, out is_stored boolean,
    out first_batch bigint, out first_position integer, out first_received timestamptz, out is_conflict boolean
) language plpgsql volatile
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_xid         bigint := pg_current_xact_id()::text::bigint;
    v_is_repeated boolean;
    v_new_topic   text;
begin
    if current_setting('synchronous_commit') = 'off' then
        perform eventsieve.commit_durably();
    end if;
    insert into eventsieve.batches (batch, flush_id, received_at, owner, lease_until, published_at)
    select l.xid_offset + v_xid, p_flush_id, now(), p_owner, now() + p_lease,
           case when p_owner is null then now() end
    from eventsieve.log l
    where l.server_started_at = pg_postmaster_start_time() and l.log_oid = l.tableoid
      and l.partitioned_below > l.xid_offset + v_xid
    on conflict (flush_id, shard) do nothing
    returning batches.batch, batches.received_at into batch, received_at;
    if found then
        v_is_repeated := false;
    else
        select b.batch, b.received_at, b.is_repeated
        into strict batch, received_at, v_is_repeated
        from eventsieve.find_or_begin_batch(p_flush_id, p_owner, p_lease) b;
    end if;

    if not v_is_repeated then
        insert into eventsieve.identities (key, batch, received_at, digest, position)
        values (p_key, append_row.batch, append_row.received_at, p_digest, 0)
        on conflict (key, shard) do nothing;
        is_stored := found;
        if is_stored then
            insert into eventsieve.events
                (batch, occurred_at, received_at, position, topic, event_id, source, payload, headers)
            values
                (append_row.batch, p_occurred, append_row.received_at, 0, p_topic, p_event_id, p_source,
                 p_payload::json, p_headers::json);
        end if;
    end if;

    if v_is_repeated or not is_stored then
        select i.batch, i.position, i.received_at, i.digest <> p_digest
        into first_batch, first_position, first_received, is_conflict
        from eventsieve.identities i
        where i.key = p_key;
        if not found then
            raise exception 'the identity of flush % has just expired', p_flush_id using errcode = 'serialization_failure';
        end if;
    end if;

    if v_is_repeated then
        -- What the earlier attempt stored carries its batch.
        is_stored := first_batch = append_row.batch;
        return;
    end if;

    insert into eventsieve.topic_counts as c
        (topic, lane, received, unique_processed, duplicate_dropped, conflicts, first_received_at, last_received_at)
    values (p_topic, p_lane, p_copies, is_stored::integer, p_copies - is_stored::integer,
            case when is_conflict then p_copies else 0 end,
            case when is_stored then append_row.received_at end, case when is_stored then append_row.received_at end)
    on conflict (topic, lane, shard) do update set
        received          = c.received + excluded.received,
        unique_processed  = c.unique_processed + excluded.unique_processed,
        duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
        conflicts         = c.conflicts + excluded.conflicts,
        first_received_at = coalesce(c.first_received_at, excluded.first_received_at),
        last_received_at  = greatest(c.last_received_at, excluded.last_received_at)
    returning case when xmax = 0 then topic end into v_new_topic;
    perform eventsieve.add_to_totals(
        p_copies, is_stored::integer, case when is_conflict then p_copies else 0 end,
        case when v_new_topic is not null then array[v_new_topic] end
    );

    if not is_stored then
        -- A batch that stored nothing has nothing to publish.
        update eventsieve.batches b set published_at = append_row.received_at
        where b.batch = append_row.batch and b.published_at is null;
        if is_conflict then
            insert into eventsieve.conflicts
                (batch, position, topic, event_id, first_batch, first_position, occurred_at, received_at, source, payload)
            select append_row.batch, 0, p_topic, p_event_id, append_row.first_batch, append_row.first_position, p_occurred,
                   append_row.received_at, p_source, case when octet_length(p_payload) <= 16384 then p_payload::json end
            where eventsieve.conflicts_left() > 0;
        end if;
    end if;
end
$$;

-- Some of these run with the rights of the schema's owner.
revoke execute on all functions in schema eventsieve from public;
