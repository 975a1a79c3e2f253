"""Returns after the last message and leaves the close to somebody else.

fails: test_the_countdown_ends_with_1000
outcome: closed early
advice: returning is not enough
"""

import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

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
    except WebSocketDisconnect:
        pass
