"""Gives each listener a queue of one, and skips a reading while another waits in it.

fails: test_the_newest_comes_before_the_next
outcome: silence
advice: let the new reading take the old one's place
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


class Instrument:
    """The newest reading, and the one task that takes readings while somebody listens."""

    def __init__(self) -> None:
        self.newest = ""
        self.queues: set[asyncio.Queue[str]] = set()
        self.readings: asyncio.Task[None] | None = None

    def read(self) -> None:
        self.newest = measure()
        for queue in self.queues:
            if not queue.full():
                queue.put_nowait(self.newest)

    async def read_on(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            self.read()

    def join(self) -> asyncio.Queue[str]:
        if self.readings is None:
            self.read()
            self.readings = asyncio.create_task(self.read_on())
        queue: asyncio.Queue[str] = asyncio.Queue(1)
        queue.put_nowait(self.newest)
        self.queues.add(queue)
        return queue

    def leave(self, queue: asyncio.Queue[str]) -> None:
        self.queues.discard(queue)
        if not self.queues and self.readings:
            self.readings.cancel()
            self.readings = None


instrument = Instrument()


async def send(websocket: WebSocket, queue: asyncio.Queue[str]) -> None:
    while True:
        await websocket.send_text(await queue.get())


async def drain(websocket: WebSocket) -> None:
    """Read and ignore what the listener says, until it has left."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


@app.websocket("/volcano")
async def volcano(websocket: WebSocket) -> None:
    await websocket.accept()
    queue = instrument.join()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(websocket, queue))
            tasks.create_task(drain(websocket))
    except* (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        instrument.leave(queue)
