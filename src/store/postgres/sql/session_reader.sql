-- The session of a reader.
-- A server whose client was cut off without closing must not go on working for it: it checks the socket each second.
set client_connection_check_interval = '1s';
set idle_in_transaction_session_timeout = '10s';
set statement_timeout = '5s';
