"""A countdown that ends by itself and stops for whoever leaves.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

import os

from fastapi import FastAPI, WebSocket, status

INTERVAL = float(os.environ.get("INTERVAL", "1.0"))  # seconds

app = FastAPI()


@app.websocket("/launch/{rocket}/{count}")
async def launch(websocket: WebSocket, rocket: str, count: int) -> None:
    await websocket.accept()
    # TODO 1: count down at a steady pace, and close with 1000 after lift-off.
    # TODO 2: read and ignore what the listener says meanwhile.
    # TODO 3: stop at once, and quietly, when the listener leaves.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 1 is still to do")
