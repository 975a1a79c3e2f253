"""A countdown that ends by itself and stops for whoever leaves: one possible solution."""

import asyncio
import os
from time import monotonic

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

INTERVAL = float(os.environ.get("INTERVAL", "1.0"))  # seconds

app = FastAPI()


async def drain(websocket: WebSocket) -> None:
    """Read and ignore what the listener says, until it has left."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


async def count_down(websocket: WebSocket, rocket: str, count: int) -> None:
    start = monotonic()
    for passed in range(count + 1):
        # Each message has its moment, whatever the ones before it took.
        await asyncio.sleep(start + passed * INTERVAL - monotonic())
        await websocket.send_text(f"{rocket}: {count - passed or 'lift-off'}")
    await websocket.close(status.WS_1000_NORMAL_CLOSURE)


@app.websocket("/launch/{rocket}/{count}")
async def launch(websocket: WebSocket, rocket: str, count: int) -> None:
    await websocket.accept()
    try:
        # The first that raises ends the other: drain() when the listener has left, also
        # after our own close, and count_down() when there is nobody to send to.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(count_down(websocket, rocket, count))
            tasks.create_task(drain(websocket))
    except* (WebSocketDisconnect, RuntimeError):
        pass
