#!/usr/bin/env python3
"""Processes every event of eventsieve exactly once, across restarts of the service and of this program.

    python3 examples/python/consumer.py --url http://127.0.0.1:8080 --state totals.db

It needs nothing but Python. It follows `/events/stream` and counts the events of each topic in an SQLite file. The cursor of
the last event is stored in the same transaction as the counts: after a crash, both are as they were before the event or both
are as they were after it. Do the same with your own results. Instead of `--url` you can set `TARGET_URL`. Behind a proxy that
asks for a password, the URL is `https://USER:PASSWORD@HOST`.
"""

import argparse
import base64
import http.client
import json
import os
import random
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request

# The service sends a comment after 15 seconds of silence. A connection that is silent for longer is dead.
SILENCE_MAX_SECONDS = 45


def request(url, body=None, headers=()):
    """A request to `url`. If the URL names a user, as in `https://USER:PASSWORD@HOST`, sends both as HTTP Basic authentication."""
    parts = urllib.parse.urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    headers = dict(headers)
    if at:
        user, _, password = (urllib.parse.unquote(part) for part in userinfo.partition(":"))
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return urllib.request.Request(parts._replace(netloc=host).geturl(), body, headers)


def events(url, topic, cursor):
    """Yields every event after `cursor` (empty: from the beginning), without end, and reconnects when it must."""
    attempt = 0
    while True:
        # `after=` empty is the beginning of the log; `Last-Event-ID` takes precedence if there is a cursor.
        query = {"after": ""} | ({"topic": topic} if topic else {})
        following = request(
            f"{url}/events/stream?{urllib.parse.urlencode(query)}",
            headers={"Accept": "text/event-stream", "Last-Event-ID": cursor},
        )
        retry_after = 0.0
        try:
            with urllib.request.urlopen(following, timeout=SILENCE_MAX_SECONDS) as stream:
                for line in stream:
                    if line.startswith(b"event: "):  # A notice: "truncated", for example, where events are gone.
                        print(line.decode().strip(), next(stream).decode().strip(), flush=True)
                    # One line holds the whole event. A line without an end was cut off with the connection.
                    elif line.startswith(b"data: ") and line.endswith(b"\n"):
                        event = json.loads(line[len(b"data: ") :])
                        yield event
                        cursor = event["cursor"]
                        attempt = 0
            reason = "the stream ended"
        except urllib.error.HTTPError as error:
            if error.code not in (429, 500, 502, 503, 504):
                raise
            try:
                retry_after = float(error.headers.get("Retry-After", 0))
            except ValueError:
                pass  # A date, which this service does not send.
            reason = f"status {error.code}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
        wait = max(retry_after, min(10.0, 0.1 * 2**attempt)) * random.uniform(1.0, 1.2)
        print(f"{reason}; connecting again in {wait:.1f} s", flush=True)
        time.sleep(wait)
        attempt += 1


def main():
    parser = argparse.ArgumentParser(description="Count the events of each topic, each event exactly once.")
    url = os.environ.get("TARGET_URL", "http://127.0.0.1:8080")
    parser.add_argument("--url", default=url, help="base URL of the service, or of a proxy: https://USER:PASSWORD@HOST")
    parser.add_argument("--topic", help="only this topic")
    parser.add_argument("--state", default="consumer.db", help="the SQLite file with the counts and the cursor")
    parser.add_argument("--limit", type=int, help="end after this many events")
    arguments = parser.parse_args()

    state = sqlite3.connect(arguments.state)
    with state:
        state.execute("create table if not exists totals (topic text primary key, events integer not null)")
        state.execute("create table if not exists progress (only_row integer primary key check (only_row = 1), cursor text)")
        state.execute("insert or ignore into progress values (1, '')")
    (cursor,) = state.execute("select cursor from progress").fetchone()
    print(f"starting after {cursor!r}", flush=True)

    processed = 0
    for event in events(arguments.url, arguments.topic, cursor):
        with state:  # One transaction for the result and the cursor.
            state.execute(
                "insert into totals values (?, 1) on conflict (topic) do update set events = events + 1",
                (event["topic"],),
            )
            state.execute("update progress set cursor = ?", (event["cursor"],))
        processed += 1
        print(event["topic"], event["event_id"], event["payload"], flush=True)
        if processed == arguments.limit:
            break
    (total,) = state.execute("select coalesce(sum(events), 0) from totals").fetchone()
    print(f"{total} events processed so far")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
