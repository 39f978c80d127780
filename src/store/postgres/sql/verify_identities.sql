-- Events whose identity is missing, or names another place: one sentence each, at most 20.
select format('event %s of topic %s is in the log, but its identity is not', e.event_id, e.topic)
from eventsieve.events e
    left join eventsieve.identities i on i.batch = e.batch and i.position = e.position
        and i.key = encode(substring(
            sha256(convert_to(e.topic, 'UTF8') || '\x00'::bytea || convert_to(e.event_id, 'UTF8')) for 16), 'hex')::uuid
where i.key is null
order by e.batch, e.position
limit 20
