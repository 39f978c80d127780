-- The session of the pruner.
-- A server whose client was cut off without closing must not go on working for it: it checks the socket each second.
set client_connection_check_interval = '1s';
set idle_in_transaction_session_timeout = '10s';
-- A step is short; only a lock of another transaction delays it, and the step is tried again.
set lock_timeout = '3s';
set statement_timeout = '60s';
set default_transaction_isolation = 'read committed';
