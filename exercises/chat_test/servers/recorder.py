"""Serves the radio in `chat.py` beside it, and prints what its clients say and hear."""

import itertools
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from chat import app as chat

Message = MutableMapping[str, Any]

MARK = "@conversation "
LONG = 60  # characters of a text that are printed
numbers = itertools.count(1)


def note(who: str, message: Message) -> None:
    said = message.get("text")
    if said is None:
        said = message.get("reason") or ""
    text = said if len(said) <= LONG else f"{said[:20]}… ({len(said)} characters)"
    size = len(message.get("bytes") or b"")
    line = [time.monotonic(), who, message["type"], text, size, message.get("code")]
    print(MARK + json.dumps(line), flush=True)


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] != "websocket":
        await chat(scope, receive, send)
        return
    who = f"client {next(numbers)}"

    async def hear() -> Message:
        message = await receive()
        note(who, message)
        return message

    async def say(message: Message) -> None:
        note(who, message)
        await send(message)

    await chat(scope, hear, say)
