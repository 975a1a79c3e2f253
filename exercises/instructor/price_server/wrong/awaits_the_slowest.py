"""Sends to all at once with gather, and still waits until the last has taken it.

fails: test_a_slow_listener_delays_nobody
outcome: silence
advice: wait for none of them
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
    listeners: set[WebSocket] = set()
    readings: asyncio.Task[None] | None = None


async def read_on() -> None:
    while True:
        await asyncio.sleep(INTERVAL)
        State.newest = measure()
        sends = [listener.send_text(State.newest) for listener in State.listeners]
        await asyncio.gather(*sends, return_exceptions=True)


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
    try:
        await websocket.send_text(State.newest)
        State.listeners.add(websocket)
        await drain(websocket)
    except WebSocketDisconnect:
        pass
    finally:
        State.listeners.discard(websocket)
        if not State.listeners and State.readings:
            State.readings.cancel()
            State.readings = None
