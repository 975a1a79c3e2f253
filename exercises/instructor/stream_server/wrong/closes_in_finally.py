"""Closes in finally, also where the listener has closed already.

fails: test_leaving_stops_the_countdown_at_once
outcome: server crashed
advice: not in `finally`
"""

import asyncio
import os

from fastapi import FastAPI, WebSocket, status

INTERVAL = float(os.environ.get("INTERVAL", "1.0"))  # seconds

app = FastAPI()


async def drain(websocket: WebSocket) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return


async def count_down(websocket: WebSocket, rocket: str, count: int) -> None:
    for number in range(count, 0, -1):
        await websocket.send_text(f"{rocket}: {number}")
        await asyncio.sleep(INTERVAL)
    await websocket.send_text(f"{rocket}: lift-off")


@app.websocket("/launch/{rocket}/{count}")
async def launch(websocket: WebSocket, rocket: str, count: int) -> None:
    await websocket.accept()
    reading = asyncio.create_task(drain(websocket))
    counting = asyncio.create_task(count_down(websocket, rocket, count))
    try:
        await asyncio.wait([reading, counting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        reading.cancel()
        counting.cancel()
        await websocket.close(status.WS_1000_NORMAL_CLOSURE)
