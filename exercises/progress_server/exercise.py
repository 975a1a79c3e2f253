"""A darkroom that works while its counter stays open.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

import hashlib
import os
import threading

from fastapi import FastAPI, WebSocket, status

ROUNDS = int(os.environ.get("ROUNDS", "500000"))  # how much work a print is

app = FastAPI()

made = 0  # prints since the server started
counting = threading.Lock()


def develop(name: str, number: int) -> str:
    """Make one print, which takes long, and count it."""
    global made
    negative = f"{name} {number}".encode()
    picture = hashlib.pbkdf2_hmac("sha256", negative, b"darkroom", ROUNDS)
    with counting:
        made += 1
    return picture.hex()[:8]


@app.websocket("/film/{name}/{count}")
async def film(websocket: WebSocket, name: str, count: int) -> None:
    await websocket.accept()
    # TODO 1: make the prints, tell of each, and close with 1000 after the last.
    # TODO 3: read what the customer says; stop when the customer leaves.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 1 is still to do")


@app.websocket("/counter")
async def counter(websocket: WebSocket) -> None:
    await websocket.accept()
    # TODO 2: answer every text at once, also in the middle of a print.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 2 is still to do")
