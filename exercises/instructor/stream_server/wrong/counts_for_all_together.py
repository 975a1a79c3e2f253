"""Keeps the number where all connections share it.

fails: test_each_listener_has_a_countdown_of_its_own
outcome: wrong message
advice: the handler's own variables
"""

import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

INTERVAL = float(os.environ.get("INTERVAL", "1.0"))  # seconds

app = FastAPI()

numbers: dict[str, int] = {}


@app.websocket("/launch/{rocket}/{count}")
async def launch(websocket: WebSocket, rocket: str, count: int) -> None:
    await websocket.accept()
    numbers[rocket] = count
    try:
        while numbers[rocket]:
            await websocket.send_text(f"{rocket}: {numbers[rocket]}")
            await asyncio.sleep(INTERVAL)
            numbers[rocket] -= 1
        await websocket.send_text(f"{rocket}: lift-off")
        await websocket.close(status.WS_1000_NORMAL_CLOSURE)
    except WebSocketDisconnect:
        pass
