-- Whether there are as many identities as events were ever stored, without those that have expired: one sentence.
select format('%d identities, but the counters say %d', i.count, c.count)
from (select count(*) as count from identities) i,
     (
         select t.unique_processed - (select l.identities_forgotten from log l) as count
         from totals t
     ) c
where i.count <> c.count
