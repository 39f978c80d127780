-- The identities that one step of forgetting examines. ?1 the key behind which it begins; ?2 those received before this time are old;
-- ?3 how many. One whose event is still there stays.
select key,
       received_at < ?2 and not exists (select 1 from events e where e.batch = i.batch and e.position = i.position) as is_old
from identities i
where key > ?1
order by key
limit ?3
