"""Starts the readings with the first listener, and never ends them.

fails: test_nothing_is_measured_while_nobody_listens
outcome: unexpected message
advice: the last one who leaves ends the task
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
    listeners = 0
    readings: asyncio.Task[None] | None = None


def read() -> None:
    State.newest = measure()
    State.changed.set()
    State.changed = asyncio.Event()


async def read_on() -> None:
    while True:
        await asyncio.sleep(INTERVAL)
        read()


def join() -> None:
    if State.listeners == 0:
        read()
    State.listeners += 1
    if State.readings is None:
        State.readings = asyncio.create_task(read_on())


def leave() -> None:
    State.listeners -= 1


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
    join()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_to(websocket))
            tasks.create_task(drain(websocket))
    except* (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        leave()
