-- Lists one identity, in log order. :batch, :position the place behind which the list begins; :below only batches below this number.
select e.topic, e.event_id, e.occurred_at, e.source, e.payload, e.headers, e.received_at, e.batch, e.position
from identities i
    cross join events e indexed by sqlite_autoindex_events_1 on e.batch = i.batch and e.position = i.position
where i.key = :key
  and e.topic = :topic
  and e.event_id = :event_id
  and (:source is null or e.source = :source)
  and (:since is null or e.occurred_at >= :since)
  and (:until is null or e.occurred_at < :until)
  and (e.batch, e.position) > (:batch, :position)
  and e.batch < :below
order by e.batch asc, e.position asc
limit :limit offset :offset
