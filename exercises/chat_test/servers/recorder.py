"""Serves the radios in `OFFERS`, a file for each path, and notes what their clients say.

What is said on a radio, and heard, stands in a file that is called as its path.
"""

import importlib.util
import itertools
import json
import os
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

Message = MutableMapping[str, Any]

LONG = 60  # characters of a text that are noted


def load(name: str, file: str) -> ASGIApp:
    """The app of a file."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    radio: ASGIApp = module.app
    return radio


def recorded(name: str, radio: ASGIApp) -> ASGIApp:
    """The radio, and a file of this name that tells what its clients say and hear."""
    numbers = itertools.count(1)
    log = Path(name).open("w", buffering=1, encoding="utf-8")  # noqa: SIM115

    def note(who: str, message: Message) -> None:
        said = message.get("text")
        if said is None:
            said = message.get("reason") or ""
        text = said if len(said) <= LONG else f"{said[:20]}… ({len(said)} characters)"
        size = len(message.get("bytes") or b"")
        line = [time.monotonic(), who, message["type"], text, size, message.get("code")]
        print(json.dumps(line), file=log)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        who = f"client {next(numbers)}"

        async def hear() -> Message:
            message = await receive()
            note(who, message)
            return message

        async def say(message: Message) -> None:
            note(who, message)
            await send(message)

        await radio(scope, hear, say)

    return app


offers: dict[str, str] = json.loads(os.environ["OFFERS"])
app = Starlette(
    routes=[
        Mount(f"/{name}", recorded(name, load(name, file))) for name, file in offers.items()
    ]
)
