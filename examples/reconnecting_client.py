"""Reconnecting client: it comes back, not too soon, and hands over each event once.

The client of resume_server.py. When the connection ends, it waits a random time between 0
and 1 second, then up to 2, 4, 8, 16 and 30, and asks for the events after the last one it
saw. After a hello the waits start again at 1. In the folder examples, in two terminals:

    uvicorn resume_server:app --timeout-graceful-shutdown 1
    python reconnecting_client.py

Stop the server, start it again, or post an event from a third terminal:

    curl -H "Content-Type: application/json" -d '{"data": 1}' http://127.0.0.1:8000/events

It ends when coming back is of no use: after close code 4001, or when the handshake is
refused with HTTP 401, 403 or another 4xx. 408, 425, 429 and all 5xx pass: a gateway sends
them while the server is away or busy. A dead line is found by pings within 40 seconds. A
server on this machine is reached directly, others through the proxy of the environment.
Notebook: notebooks/14_resume_server.ipynb. Exercise: exercises/reconnecting_client.
"""

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, TypedDict
from urllib.parse import urlencode, urlsplit

from websockets.asyncio.client import connect
from websockets.client import process_exception
from websockets.exceptions import (
    ConnectionClosed,
    InvalidProxyStatus,
    InvalidStatus,
    ProxyError,
    WebSocketException,
)

URL = "ws://127.0.0.1:8000/ws/events"
SHORTEST = 1.0  # seconds: the bound of the first wait
LONGEST = 30.0  # seconds: the bound of all waits after the fifth
STAY_AWAY = 4001  # the close code of a server that does not want this client back
LATER = (408, 425, 429)  # HTTP statuses: timeout, too early, too many requests
LOCAL = ("localhost", "127.0.0.1", "::1")  # names of this machine


class Message(TypedDict, total=False):
    """A hello with `epoch` and `recovered`, or an event with `id` and `data`."""

    type: str
    epoch: str
    recovered: bool
    id: int
    data: object


def address(url: str, last_id: int, epoch: str | None) -> str:
    """Return where to go on; a newcomer, who knows no epoch, asks for all events."""
    if epoch is None:
        return url
    mark = "&" if "?" in url else "?"
    return url + mark + urlencode({"last_id": last_id, "epoch": epoch})


def is_final(error: Exception) -> bool:
    """Return whether coming back would end in the same way."""
    if isinstance(error, ConnectionClosed):
        return error.rcvd is not None and error.rcvd.code == STAY_AWAY
    if isinstance(error, InvalidStatus | InvalidProxyStatus):
        status = error.response.status_code
        return status < 500 and status not in LATER
    # For `websockets`, a lost line and no answer pass. A proxy that finds no server says so
    # in a way of its own. Everything else is final: a wrong URL, or a bug in this file.
    return process_exception(error) is not None and not isinstance(error, ProxyError)


async def follow(
    url: str,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    uniform: Callable[[float, float], float] = random.uniform,
) -> AsyncIterator[Message]:
    """Yield the hello of each connection, and each event exactly once.

    A hello that is not `recovered` says that events are missing at this place. The error
    that ends it for good is raised.
    """
    # `async for websocket in connect(url)` reconnects too, and its waits can be set. But
    # it goes to the same URL each time, where ours holds the last id, and it comes back
    # without any wait to a server that accepts a connection only to close it.
    last_id, epoch, bound = 0, None, SHORTEST
    # If HTTP_PROXY is set, `connect` asks that proxy, which cannot reach this machine.
    proxy: Literal[True] | None = None if urlsplit(url).hostname in LOCAL else True
    while True:
        try:
            async with connect(address(url, last_id, epoch), proxy=proxy) as websocket:
                while True:
                    message: Message = json.loads(await websocket.recv())
                    if message["type"] == "hello":
                        # A handshake alone is no success: the server may still close.
                        bound = SHORTEST
                        if message["epoch"] != epoch:
                            # Another process, which counts from 1 again.
                            last_id, epoch = 0, message["epoch"]
                    elif message["id"] > last_id:
                        last_id = message["id"]
                    else:
                        continue  # Seen before.
                    yield message
        except Exception as error:
            if is_final(error):
                raise
        # When a server restarts, all its clients lose it in the same moment. Waiting the
        # bound itself, they would all come back in the same moment, too.
        await sleep(uniform(0, bound))
        bound = min(2 * bound, LONGEST)


async def announced_sleep(seconds: float) -> None:
    print(f"(no connection; next attempt in {seconds:.1f} s)", flush=True)
    await asyncio.sleep(seconds)


async def main() -> None:
    async for message in follow(URL, sleep=announced_sleep):
        if message["type"] == "event":
            print(message["id"], json.dumps(message["data"]), flush=True)
        elif message["recovered"]:
            print("(connected; nothing is missing)", flush=True)
        else:
            print("(connected; some events are lost)", flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except WebSocketException as error:
        sys.exit(f"It is of no use to come back: {error}")
