#!/usr/bin/env python3
"""Publishes events to eventsieve, and resends each request until the service has stored it.

    python3 examples/python/producer.py --url http://127.0.0.1:8080 --events 20

It needs nothing but Python. Run it twice: the second run finds its events already stored. Instead of `--url` you can set
`TARGET_URL`. Behind a proxy that asks for a password, the URL is `https://USER:PASSWORD@HOST`.
"""

import argparse
import base64
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request


def request(url, body=None, headers=()):
    """A request to `url`. If the URL names a user, as in `https://USER:PASSWORD@HOST`, sends both as HTTP Basic authentication."""
    parts = urllib.parse.urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    headers = dict(headers)
    if at:
        user, _, password = (urllib.parse.unquote(part) for part in userinfo.partition(":"))
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return urllib.request.Request(parts._replace(netloc=host).geturl(), body, headers)


def publish(url, events, give_up_after=300):
    """Sends `events` in one request until they are stored, and returns the response of the service.

    Resending is safe after any failure: the service knows each event by its topic and id, and stores it once. It raises
    `ValueError` if the service rejects the events as invalid, and `TimeoutError` if they are not stored in time.
    """
    body = json.dumps(events).encode()
    deadline = time.monotonic() + give_up_after
    attempt = 0
    while True:
        retry_after = 0.0
        publishing = request(url + "/publish", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(publishing, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            detail = error.read().decode("utf-8", "replace")
            # 429 and 503: nothing was stored. 502 and 504: the outcome is unknown. Other errors will not go away.
            if error.code not in (429, 500, 502, 503, 504):
                raise ValueError(f"{error.code}: {detail}") from error
            try:
                retry_after = float(error.headers.get("Retry-After", 0))
            except ValueError:
                pass  # A date, which this service does not send.
            reason = f"status {error.code}"
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            reason = str(error)  # No connection, or it was lost: the outcome is unknown.
        # Wait at least as long as the service asks for, longer after each failure, and not in step with other producers.
        wait = max(retry_after, min(10.0, 0.1 * 2**attempt)) * random.uniform(1.0, 1.2)
        if time.monotonic() + wait > deadline:
            raise TimeoutError(f"not stored after {give_up_after} seconds: {reason}")
        print(f"{reason}; sending again in {wait:.1f} s", flush=True)
        time.sleep(wait)
        attempt += 1


def main():
    parser = argparse.ArgumentParser(description="Publish events, and resend until they are stored.")
    url = os.environ.get("TARGET_URL", "http://127.0.0.1:8080")
    parser.add_argument("--url", default=url, help="base URL of the service, or of a proxy: https://USER:PASSWORD@HOST")
    parser.add_argument("--events", type=int, default=20, help="how many events to publish")
    parser.add_argument("--batch", type=int, default=10, help="how many events to send in one request")
    arguments = parser.parse_args()

    stored = duplicates = 0
    for start in range(0, arguments.events, arguments.batch):
        numbers = range(start, min(start + arguments.batch, arguments.events))
        # The id comes from the data, not from the attempt: that is what makes a resent event a duplicate.
        events = [
            {
                "topic": "example.order",
                "event_id": f"order-{number:06}",
                "timestamp": "2025-10-24T10:30:00Z",
                "source": "producer.py",
                "payload": {"order": number, "total": 10 + number},
            }
            for number in numbers
        ]
        response = publish(arguments.url, events)
        stored += response["unique_processed"]
        duplicates += response["duplicate_dropped"]
    print(f"stored {stored}, duplicates {duplicates}")


if __name__ == "__main__":
    main()
