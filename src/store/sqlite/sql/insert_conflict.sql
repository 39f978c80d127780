-- Keeps a conflict, unless ?11 were kept since ?12. ?1, ?2 its place; ?3 topic, ?4 event_id, ?5, ?6 the place of the first copy, ?7
-- timestamp, ?8 now, ?9 source, ?10 payload or null.
insert into conflicts (batch, position, topic, event_id, first_batch, first_position, occurred_at, received_at, source, payload)
select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10
where ?11 > (
    select count(*)
    from (select received_at from conflicts order by batch desc, position desc limit ?11)
    where received_at > ?12
)
