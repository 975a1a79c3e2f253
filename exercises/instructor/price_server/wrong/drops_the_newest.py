"""Gives each listener a short queue, and drops what finds no room in it.

So the old readings stay, and the new ones are lost.

fails: test_a_slow_listener_hears_the_newest
outcome: wrong message
advice: takes the place of the old one
"""

import asyncio
import contextlib
import itertools
import os
import random

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

INTERVAL = float(os.environ.get("INTERVAL", "1.0"))  # seconds
LENGTH = int(os.environ.get("LENGTH", "8"))  # characters of a tremor

app = FastAPI()

numbers = itertools.count(1)


def measure() -> str:
    """Take a reading, which costs some of the battery."""
    tremor = random.randbytes(LENGTH // 2).hex()
    return f"{next(numbers)}: {tremor}"


class State:
    newest = ""
    queues: set[asyncio.Queue[str]] = set()
    readings: asyncio.Task[None] | None = None


async def read_on() -> None:
    while True:
        await asyncio.sleep(INTERVAL)
        State.newest = measure()
        for queue in State.queues:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(State.newest)


async def send_to(websocket: WebSocket, queue: asyncio.Queue[str]) -> None:
    while True:
        await websocket.send_text(await queue.get())


async def drain(websocket: WebSocket) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


@app.websocket("/volcano")
async def volcano(websocket: WebSocket) -> None:
    await websocket.accept()
    if State.readings is None:
        State.newest = measure()
        State.readings = asyncio.create_task(read_on())
    queue: asyncio.Queue[str] = asyncio.Queue(10)
    queue.put_nowait(State.newest)
    State.queues.add(queue)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_to(websocket, queue))
            tasks.create_task(drain(websocket))
    except* (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        State.queues.discard(queue)
        if not State.queues and State.readings:
            State.readings.cancel()
            State.readings = None
