-- The session of a writer.
-- A server whose client was cut off without closing must not go on working for it: it checks the socket each second.
set client_connection_check_interval = '1s';
set idle_in_transaction_session_timeout = '10s';
-- A group commit that waits for a key of another transaction, or for a lock of a schema change, gives up before the deadline of
-- the request.
set lock_timeout = '3s';
set statement_timeout = '10s';
-- A large batch must not spill its arrays to disk.
set work_mem = '32MB';
-- Whatever the default of the database is: a group commit needs a fresh snapshot for each of its queries.
set default_transaction_isolation = 'read committed';
