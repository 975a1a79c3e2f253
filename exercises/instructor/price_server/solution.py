"""A volcano whose one instrument serves everybody: one possible solution."""

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


class Instrument:
    """The newest reading, and the one task that takes readings while somebody listens."""

    def __init__(self) -> None:
        self.newest = ""
        self.changed = asyncio.Event()  # set when `newest` has been replaced
        self.listeners = 0
        self.readings: asyncio.Task[None] | None = None

    def read(self) -> None:
        self.newest = measure()
        self.changed.set()
        self.changed = asyncio.Event()

    async def read_on(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            self.read()

    def join(self) -> None:
        self.listeners += 1
        if self.readings is None:
            self.read()
            self.readings = asyncio.create_task(self.read_on())

    def leave(self) -> None:
        self.listeners -= 1
        if self.listeners == 0 and self.readings:
            self.readings.cancel()
            self.readings = None

    async def send_to(self, websocket: WebSocket) -> None:
        while True:
            # A slow listener may miss many readings during its send. The event is set by
            # then, and the next round sends the newest.
            changed = self.changed
            await websocket.send_text(self.newest)
            await changed.wait()


instrument = Instrument()


async def drain(websocket: WebSocket) -> None:
    """Read and ignore what the listener says, until it has left."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


@app.websocket("/volcano")
async def volcano(websocket: WebSocket) -> None:
    await websocket.accept()
    instrument.join()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(instrument.send_to(websocket))
            await drain(websocket)
    except* (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        instrument.leave()
