"""Reads instead of sleeping, so that every word of the listener ends the wait.

fails: test_talking_changes_nothing
outcome: unexpected message
advice: brought the next message forward
"""

import asyncio
import contextlib
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
            with contextlib.suppress(TimeoutError):
                message = await asyncio.wait_for(websocket.receive(), INTERVAL)
                if message["type"] == "websocket.disconnect":
                    return
        await websocket.send_text(f"{rocket}: lift-off")
        await websocket.close(status.WS_1000_NORMAL_CLOSURE)
    except WebSocketDisconnect:
        pass
