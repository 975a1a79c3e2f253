"""Lets `websockets` reconnect by itself: to the same URL, and with waits of its own.

fails: test_it_comes_back_to_where_it_was
outcome: unexpected message
advice: with the tool that `follow` is given
"""

import json
from collections.abc import Awaitable, Callable

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def follow(
    url: str,
    show: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]],
    draw: Callable[[], float],
) -> None:
    try:
        async for connection in connect(url):
            try:
                async for text in connection:
                    message = json.loads(text)
                    if message["type"] == "train":
                        show(message["text"])
            except ConnectionClosed as error:
                if error.rcvd and error.rcvd.code == 4001:
                    return
    except InvalidStatus:
        return
