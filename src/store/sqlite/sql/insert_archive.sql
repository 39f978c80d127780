-- Notes what was archived. ?1 first batch, ?2 manifest, ?3 events, ?4 now.
insert into archives (first_batch, manifest, events, archived_at) values (?1, ?2, ?3, ?4)
on conflict (first_batch) do update set manifest = excluded.manifest, events = excluded.events, archived_at = excluded.archived_at
