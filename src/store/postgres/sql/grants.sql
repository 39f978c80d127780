-- What a role needs that serves, verifies and prunes, and neither owns the tables nor migrates them. It cannot change an event, nor make or
-- drop a table, but by the functions of the schema that let partitions begin and expire. service_role stands for its name.
grant usage on schema eventsieve to service_role;
grant select, insert on eventsieve.events to service_role;
grant select, insert, delete on eventsieve.identities, eventsieve.conflicts, eventsieve.largest_topics to service_role;
grant select, insert, update on eventsieve.gaps, eventsieve.leases, eventsieve.archives, eventsieve.totals to service_role;
grant select, insert, update, delete
    on eventsieve.batches, eventsieve.topic_counts, eventsieve.topics, eventsieve.parked to service_role;
grant select, insert, update, delete on eventsieve.keys to service_role;
grant select, update on eventsieve.log, eventsieve.forgotten_topics, eventsieve.access to service_role;
grant select, update (begun_at, ended_at, decision, held_back, archived_as) on eventsieve.partitions to service_role;
grant select on eventsieve.log_end, eventsieve.migrations to service_role;
grant execute on all functions in schema eventsieve to service_role;
