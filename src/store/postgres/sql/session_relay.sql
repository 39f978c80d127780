-- The session of the relay.
-- A server whose client was cut off without closing must not go on working for it: it checks the socket each second.
set client_connection_check_interval = '1s';
set idle_in_transaction_session_timeout = '10s';
-- The relay needs no lock that another transaction holds for long: one that lasts is given up and requested again.
set lock_timeout = '1s';
set statement_timeout = '5s';
set default_transaction_isolation = 'read committed';
