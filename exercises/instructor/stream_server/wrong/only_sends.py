"""Sends and sleeps and never reads, as the popular tutorials do.

One unread message stops uvicorn from reading on, so that it misses the pongs.

fails: test_talking_harms_nobody
outcome: closed early
advice: read as long as the countdown lasts
"""

import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

INTERVAL = float(os.environ.get("INTERVAL", "1.0"))  # seconds

app = FastAPI()


@app.websocket("/launch/{rocket}/{count}")
async def launch(websocket: WebSocket, rocket: str, count: int) -> None:
    await websocket.accept()
    try:
        for number in range(count, 0, -1):
            await websocket.send_text(f"{rocket}: {number}")
            await asyncio.sleep(INTERVAL)
        await websocket.send_text(f"{rocket}: lift-off")
        await websocket.close(status.WS_1000_NORMAL_CLOSURE)
    except WebSocketDisconnect:
        pass
