"""Sleeps with time.sleep, and with it sleeps every other countdown.

fails: test_no_wait_before_the_first_or_after_the_last
outcome: event loop blocked
advice: await asyncio.sleep
"""

import os
import time

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

INTERVAL = float(os.environ.get("INTERVAL", "1.0"))  # seconds

app = FastAPI()


@app.websocket("/launch/{rocket}/{count}")
async def launch(websocket: WebSocket, rocket: str, count: int) -> None:
    await websocket.accept()
    try:
        for number in range(count, 0, -1):
            await websocket.send_text(f"{rocket}: {number}")
            time.sleep(INTERVAL)  # noqa: ASYNC251
        await websocket.send_text(f"{rocket}: lift-off")
        await websocket.close(status.WS_1000_NORMAL_CLOSURE)
    except WebSocketDisconnect:
        pass
