-- Lists everything, newest first. :batch, :position the place before which the list begins; :below only batches below this number.
select topic, event_id, occurred_at, source, payload, headers, received_at, batch, position
from events indexed by sqlite_autoindex_events_1
where :topic is null
  and (:event_id is null or event_id = :event_id)
  and (:source is null or source = :source)
  and (:since is null or occurred_at >= :since)
  and (:until is null or occurred_at < :until)
  and (batch, position) < (:batch, :position)
  and batch < :below
order by batch desc, position desc
limit :limit offset :offset
