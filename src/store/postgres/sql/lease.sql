-- Takes or renews a lease. $1 name, $2 owner, $3 its length; $4 a lease that ends later than this from now was made when the clock was
-- wrong. No row: somebody else has it.
insert into eventsieve.leases as l (name, owner, lease_until)
values ($1, $2, now() + $3)
on conflict (name) do update set owner = excluded.owner, lease_until = excluded.lease_until
where l.owner = excluded.owner or l.lease_until <= now() or l.lease_until > now() + $4
returning l.owner
