"""Remembers a run with its first train, and asks for the old one if the line is cut before.

fails: test_another_run_counts_from_1_again
outcome: wrong message
advice: remember the new run from then on
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

URL = "ws://127.0.0.1:8000/ws/trains"
SHORTEST, LONGEST = 1.0, 30.0  # seconds: the bounds of the waits
UNWANTED = 4001  # the close code of a server that does not want this board
REFUSED = (401, 403)


def is_final(error: Exception) -> bool:
    """Whether the next attempt would end in the same way."""
    if isinstance(error, ConnectionClosed):
        return error.rcvd is not None and error.rcvd.code == UNWANTED
    return isinstance(error, InvalidStatus) and error.response.status_code in REFUSED


async def follow(
    url: str,
    show: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]],
    draw: Callable[[], float],
) -> None:
    run, last, bound = None, 0, SHORTEST
    now = None  # the run of this connection
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
                        now = message["run"]
                        if run is None:
                            run = now
                    elif message["type"] == "train" and (
                        now != run or message["number"] > last
                    ):
                        run, last = now, message["number"]
                        show(message["text"])
        except (OSError, ConnectionClosed, InvalidHandshake) as error:
            if is_final(error):
                return
        await sleep(draw() * bound)
        bound = min(2 * bound, LONGEST)


if __name__ == "__main__":
    asyncio.run(follow(URL, print, asyncio.sleep, random.random))
