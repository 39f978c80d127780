-- The keys that were changed after a version, in the order of their versions. $1 version; $2 how many at most.
-- No key is one row whose id is null.
select a.version as newest_version, k.*
from eventsieve.access a
    left join lateral (
        select k.*
        from eventsieve.keys k
        where k.version > $1
        order by k.version
        limit $2
    ) k on true
order by k.version
