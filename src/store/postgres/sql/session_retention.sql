-- The session of expiry.
-- A server whose client was cut off without closing must not go on working for it: it checks the socket each second.
set client_connection_check_interval = '1s';
set idle_in_transaction_session_timeout = '10s';
-- The exchange of a partition has a time limit of its own; everything else waits for no lock but that of another expiry. To count a
-- large partition takes minutes.
set lock_timeout = '3s';
set statement_timeout = '1h';
set default_transaction_isolation = 'read committed';
