"""Reads events of a stream with one of five client libraries, as its README shows, and prints the id of each in a line.

    sse_clients.py LIBRARY URL COUNT
"""

import asyncio
import json
import sys


def httpx_sse(url):
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client(timeout=None) as client:
        with connect_sse(client, "GET", url) as source:
            yield from (event.data for event in source.iter_sse())


def sseclient(url):
    from sseclient import SSEClient

    yield from (event.data for event in SSEClient(url))


def requests_sse(url):
    from requests_sse import EventSource

    with EventSource(url, timeout=60) as source:
        yield from (event.data for event in source)


async def aiosseclient(url):
    from aiosseclient import aiosseclient as events

    async for event in events(url):
        yield event.data


async def aiohttp_sse_client2(url):
    from aiohttp_sse_client2 import client

    async with client.EventSource(url) as source:
        async for event in source:
            yield event.data


def show(data):
    print(json.loads(data)["event_id"], flush=True)


async def show_all(events, count):
    async for data in events:
        show(data)
        count -= 1
        if count == 0:
            return


def main():
    library, url, count = sys.argv[1:]
    events = globals()[library](url)
    if hasattr(events, "__aiter__"):
        asyncio.run(show_all(events, int(count)))
        return
    for _ in range(int(count)):
        show(next(events))


main()
