"""Starts the wait again after every word of the listener.

fails: test_talking_changes_nothing
outcome: silence
advice: put the next message off
"""

import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

INTERVAL = float(os.environ.get("INTERVAL", "1.0"))  # seconds

app = FastAPI()


async def stays_silent(websocket: WebSocket) -> bool:
    try:
        message = await asyncio.wait_for(websocket.receive(), INTERVAL)
    except TimeoutError:
        return True
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    return False


@app.websocket("/launch/{rocket}/{count}")
async def launch(websocket: WebSocket, rocket: str, count: int) -> None:
    await websocket.accept()
    try:
        for number in range(count, 0, -1):
            await websocket.send_text(f"{rocket}: {number}")
            while not await stays_silent(websocket):
                pass
        await websocket.send_text(f"{rocket}: lift-off")
        await websocket.close(status.WS_1000_NORMAL_CLOSURE)
    except WebSocketDisconnect:
        pass
