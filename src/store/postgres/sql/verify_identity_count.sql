-- Whether there are as many identities as events were ever stored, without those that have expired: one sentence.
select format('%s identities, but the counters say %s', i.count, c.count)
from (select count(*) from eventsieve.identities) i,
     (
         select coalesce(sum(t.unique_processed), 0)::bigint - (select l.identities_forgotten from eventsieve.log l) as count
         from eventsieve.totals t
     ) c
where i.count <> c.count
