"""Reads beside the countdown, but lets it go on when the listener has left.

fails: test_leaving_stops_the_countdown_at_once
outcome: silence
advice: the end of reading must end the countdown
"""

import asyncio
import contextlib
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

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
    await websocket.close(status.WS_1000_NORMAL_CLOSURE)


@app.websocket("/launch/{rocket}/{count}")
async def launch(websocket: WebSocket, rocket: str, count: int) -> None:
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        await asyncio.gather(drain(websocket), count_down(websocket, rocket, count))
