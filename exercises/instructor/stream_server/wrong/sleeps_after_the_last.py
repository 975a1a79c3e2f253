"""Sleeps after every message, also after the last one.

fails: test_no_wait_before_the_first_or_after_the_last
outcome: silence
advice: none after the last
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
        for number in range(count, -1, -1):
            await websocket.send_text(f"{rocket}: {number or 'lift-off'}")
            await asyncio.sleep(INTERVAL)
        await websocket.close(status.WS_1000_NORMAL_CLOSURE)
    except WebSocketDisconnect:
        pass
