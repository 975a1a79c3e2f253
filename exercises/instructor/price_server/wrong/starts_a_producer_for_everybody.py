"""Starts the task that takes readings for all once for each listener.

fails: test_one_reading_serves_everybody
outcome: unexpected message
advice: when the first listener comes, and only then
"""

import asyncio
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
    changed = asyncio.Event()


def read() -> None:
    State.newest = measure()
    State.changed.set()
    State.changed = asyncio.Event()


async def read_on() -> None:
    while True:
        await asyncio.sleep(INTERVAL)
        read()


async def send_to(websocket: WebSocket) -> None:
    while True:
        changed = State.changed
        await websocket.send_text(State.newest)
        await changed.wait()


async def drain(websocket: WebSocket) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


@app.websocket("/volcano")
async def volcano(websocket: WebSocket) -> None:
    await websocket.accept()
    if not State.newest:
        read()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read_on())
            tasks.create_task(send_to(websocket))
            tasks.create_task(drain(websocket))
    except* (WebSocketDisconnect, RuntimeError):
        pass
