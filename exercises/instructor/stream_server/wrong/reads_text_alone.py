"""Reads beside the countdown, but takes every message for text.

fails: test_talking_changes_nothing
outcome: server crashed
advice: fails on a binary message
"""

import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

INTERVAL = float(os.environ.get("INTERVAL", "1.0"))  # seconds

app = FastAPI()


async def drain(websocket: WebSocket) -> None:
    while True:
        await websocket.receive_text()


async def count_down(websocket: WebSocket, rocket: str, count: int) -> None:
    for number in range(count, 0, -1):
        await websocket.send_text(f"{rocket}: {number}")
        await asyncio.sleep(INTERVAL)
    await websocket.send_text(f"{rocket}: lift-off")
    await websocket.close(status.WS_1000_NORMAL_CLOSURE)


@app.websocket("/launch/{rocket}/{count}")
async def launch(websocket: WebSocket, rocket: str, count: int) -> None:
    await websocket.accept()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(count_down(websocket, rocket, count))
            tasks.create_task(drain(websocket))
    except* WebSocketDisconnect:
        pass
