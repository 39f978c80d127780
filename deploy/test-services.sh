#!/usr/bin/env bash
# Runs a command with a PostgreSQL and a Redis to test against:
#
#     deploy/test-services.sh COMMAND [ARGUMENT…]
#
# What the command finds in its environment:
#
#   DATABASE_URL             a superuser's URL of a PostgreSQL; tests create databases of their own on it
#   REDIS_URL                a Redis
#   EVENTSIEVE_TEST_PG_BIN   the folder of PostgreSQL's programs, for tests that start (and kill) a server of their own;
#                            unset if there is none on this machine
#   EVENTSIEVE_TEST_PG_USER  the user that such a server must run as (setpriv --reuid), because PostgreSQL does not run as root;
#                            empty unless this script runs as root
#   TMPDIR                   a folder that every user may enter and write to; it is removed at the end
#
# DATABASE_URL and REDIS_URL are taken as they are if they are set, each on its own. For one that is not set, the server
# installed on this machine is started on a free port of 127.0.0.1, with its data in a temporary folder; a missing one is
# installed by integration-tests/setup.
#
# The exit status is the command's. No process and no folder stays behind, also after INT, TERM or HUP: at the end the servers,
# the command's process group and every PostgreSQL with its data in TMPDIR are stopped. The command's standard input is never a
# terminal, because the command runs in the background, so that this script handles a signal at once.

# Some functions are called by traps only, which shellcheck does not see.
# shellcheck disable=SC2317

set -euo pipefail

# Each server may need this long to start, on a slow and busy machine.
START_SECONDS=60
# How long the command may take to end after a signal, and a PostgreSQL to stop.
STOP_SECONDS=10
# A random port is seldom taken; this many in a row mean that something else is wrong.
PORT_ATTEMPTS=20

folder=""
command_pid=""
# Set by start_on_free_port.
server_port=""

main() {
    if [ $# -eq 0 ]; then
        echo "usage: deploy/test-services.sh COMMAND [ARGUMENT…]" >&2
        exit 2
    fi
    trap 'interrupted HUP 129' HUP
    trap 'interrupted INT 130' INT
    trap 'interrupted TERM 143' TERM
    trap clean_up EXIT

    # In /tmp and not in the caller's TMPDIR: the user that PostgreSQL runs as must be able to reach it.
    folder=$(mktemp -d /tmp/eventsieve-test.XXXXXX)
    chmod 755 "$folder"
    mkdir -m 1777 "$folder/tmp"
    export TMPDIR="$folder/tmp"

    "$(dirname "${BASH_SOURCE[0]}")/../integration-tests/setup" services
    EVENTSIEVE_TEST_PG_BIN=$(postgres_bin)
    EVENTSIEVE_TEST_PG_USER=$(postgres_user)
    if [ -z "${DATABASE_URL:-}" ]; then start_postgres; fi
    if [ -z "${REDIS_URL:-}" ]; then start_redis; fi
    export DATABASE_URL REDIS_URL EVENTSIEVE_TEST_PG_BIN EVENTSIEVE_TEST_PG_USER
    if [ -z "$EVENTSIEVE_TEST_PG_BIN" ]; then unset EVENTSIEVE_TEST_PG_BIN; fi

    # A background job that reads the terminal would be stopped.
    if [ -t 0 ]; then exec </dev/null; fi
    in_own_group "$@"
    command_pid=$!
    local status=0
    wait "$command_pid" || status=$?
    exit "$status"
}

# Starts a command in the background, in a process group of its own, whose leader is $!. Ctrl-C in a terminal then reaches only
# this script, which stops everything in order, and the whole group can be ended at once.
in_own_group() {
    set -m
    "$@" &
    set +m
}

# --- PostgreSQL

# Prints the folder of the newest PostgreSQL installed, or nothing.
postgres_bin() {
    local newest on_path
    newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
    on_path=$(command -v initdb || true)
    if [ -x "$newest" ]; then
        dirname "$newest"
    elif [ -n "$on_path" ]; then
        dirname "$(readlink -f "$on_path")"
    fi
}

# Prints the user that PostgreSQL runs as if this script runs as root, and nothing otherwise.
postgres_user() {
    if [ "$(id -u)" -ne 0 ]; then
        return
    elif id postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

# Becomes the given command, as the user that PostgreSQL runs as.
exec_postgres() {
    # A program that cannot enter its working directory warns or fails.
    cd "$folder"
    # English messages, which start_on_free_port reads.
    export LC_ALL=C
    local user=$EVENTSIEVE_TEST_PG_USER
    if [ -z "$user" ]; then
        exec "$@"
    else
        exec setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups -- "$@"
    fi
}

start_postgres() {
    local data="$folder/postgres" log="$folder/postgres.log" password
    # A password, because other users of this machine can reach the port, and a superuser can run programs.
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    mkdir -m 700 "$data"
    (umask 077 && echo "$password" >"$folder/password")
    if [ -n "$EVENTSIEVE_TEST_PG_USER" ]; then chown "$EVENTSIEVE_TEST_PG_USER" "$data" "$folder/password"; fi

    # --no-sync: the empty cluster need not survive a power cut; what the tests write is synced (fsync below).
    (exec_postgres "$EVENTSIEVE_TEST_PG_BIN/initdb" --pgdata="$data" --username=postgres --pwfile="$folder/password" \
        --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync) >"$log" 2>&1 || start_failed PostgreSQL "$log"
    rm "$folder/password"

    # fsync as in production, because durability is tested. 300 connections, because many tests run at once, each with one or
    # more services. Prepared transactions, because tests hold back the last stable position with them.
    start_on_free_port PostgreSQL "$log" "database system is ready to accept connections" \
        exec_postgres "$EVENTSIEVE_TEST_PG_BIN/postgres" -D "$data" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c fsync=on -c max_connections=300 -c max_prepared_transactions=10 -p
    DATABASE_URL="postgres://postgres:$password@127.0.0.1:$server_port/postgres"
}

# --- Redis

start_redis() {
    mkdir "$folder/redis"
    # Nothing is written to disk: no test restarts this Redis.
    start_on_free_port Redis "$folder/redis.log" "Ready to accept connections" \
        redis-server --bind 127.0.0.1 --dir "$folder/redis" --save "" --appendonly no --port
    REDIS_URL="redis://127.0.0.1:$server_port/0"
}

# --- Starting a server

# start_on_free_port NAME LOG READY COMMAND…: starts COMMAND with a port number appended, in the background, and waits until it
# logs READY. If the port is taken, it tries another one. The ports are below those that the kernel uses for outgoing connections.
start_on_free_port() {
    local name=$1 log=$2 ready=$3 attempt server_pid deadline
    shift 3
    for ((attempt = 0; attempt < PORT_ATTEMPTS; attempt++)); do
        server_port=$((10000 + RANDOM % 20000))
        in_own_group "$@" "$server_port" >"$log" 2>&1 </dev/null
        server_pid=$!
        deadline=$((SECONDS + START_SECONDS))
        while ! grep -q "$ready" "$log"; do
            if ! kill -0 "$server_pid" 2>/dev/null; then
                if grep -q "Address already in use" "$log"; then continue 2; fi
                start_failed "$name" "$log"
            elif [ "$SECONDS" -ge "$deadline" ]; then
                start_failed "$name" "$log"
            fi
            sleep 0.05
        done
        return
    done
    start_failed "$name" "$log"
}

start_failed() {
    echo "test-services: $1 does not start; the end of its log:" >&2
    tail -n 20 "$2" >&2
    exit 1
}

# --- The end

# Passes a signal on to the command; the EXIT trap does the rest.
interrupted() {
    if [ -n "$command_pid" ]; then kill -s "$1" -- "-$command_pid" 2>/dev/null || true; fi
    exit "$2"
}

clean_up() {
    trap '' HUP INT TERM
    set +e
    local pid
    if [ -n "$command_pid" ]; then
        # It has ended already, except after a signal.
        wait_until_gone "$command_pid"
    fi
    # Before the process groups are killed, because a killed PostgreSQL leaves shared memory behind.
    stop_postgres_servers
    # `jobs` lists every server that was started. The command's process group may outlive the command.
    for pid in $(jobs -p) $command_pid; do kill -KILL -- "-$pid" 2>/dev/null; done
    wait 2>/dev/null
    if [ -n "$folder" ]; then rm -rf "$folder"; fi
}

# Stops every PostgreSQL with its data in $folder: the one started here, and those that tests have started.
stop_postgres_servers() {
    local pid_files file pid pids=()
    mapfile -t pid_files < <(find "$folder" -name postmaster.pid 2>/dev/null)
    for file in "${pid_files[@]}"; do
        pid=$(head -n 1 "$file" 2>/dev/null)
        # QUIT is the immediate shutdown of PostgreSQL.
        if [[ $pid =~ ^[0-9]+$ ]] && kill -QUIT "$pid" 2>/dev/null; then pids+=("$pid"); fi
    done
    for pid in "${pids[@]}"; do wait_until_gone "$pid"; done
}

# Waits until a process has ended, and kills it if it takes too long.
wait_until_gone() {
    local deadline=$((SECONDS + STOP_SECONDS))
    while kill -0 "$1" 2>/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            kill -KILL "$1" 2>/dev/null
            return
        fi
        sleep 0.05
    done
}

main "$@"
