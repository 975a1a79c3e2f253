"""Takes every end for a pause, as most reconnecting clients on the web do.

fails: test_trains_are_shown
outcome: unexpected message
advice: after close code 4001, return
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

URL = "ws://127.0.0.1:8000/ws/trains"
SHORTEST, LONGEST = 1.0, 30.0  # seconds: the bounds of the waits


async def follow(
    url: str,
    show: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]],
    draw: Callable[[], float],
) -> None:
    run, last, bound = None, 0, SHORTEST
    while True:
        query = "" if run is None else "?" + urlencode({"run": run, "after": last})
        try:
            async with connect(url + query) as connection:
                while True:
                    # Unlike `async for`, this raises after close code 1000, too.
                    message = json.loads(await connection.recv())
                    if message["type"] == "hello":
                        # A handshake alone is no success: the server may still close.
                        bound = SHORTEST
                        if message["run"] != run:
                            run, last = message["run"], 0
                    elif message["type"] == "train" and message["number"] > last:
                        last = message["number"]
                        show(message["text"])
        except (OSError, ConnectionClosed, InvalidHandshake):
            pass
        await sleep(draw() * bound)
        bound = min(2 * bound, LONGEST)


if __name__ == "__main__":
    asyncio.run(follow(URL, print, asyncio.sleep, random.random))
