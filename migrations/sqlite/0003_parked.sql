-- Parked events: those that the fan-out refuses for themselves (it would refuse them again tomorrow, and hold up what comes
-- behind them). The event stays in the log; what is kept here is that the fan-out is owed it, since when, and what was said.
-- Their batch counts as published, so nothing else in it waits. A row goes when the fan-out has taken the event after all.

-- The place is the key, for that is the order in which they are listed and sent again. The identity stands beside it, so that
-- an event is found by its own key, and a row that has outlived its event is seen for what it is.
create table parked (
    batch     integer not null,
    position  integer not null,
    topic     text    not null,
    event_id  text    not null,
    parked_at integer not null,
    reason    text    not null,
    primary key (batch, position)
) strict, without rowid;

-- The outbox needs no further index: what is to be claimed is found by batches_unpublished_idx, which holds only what is
-- unpublished, in the order in which it is claimed; and the ledger is pruned in the order of its primary key.
