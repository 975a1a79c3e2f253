"""A volcano whose one instrument serves everybody.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

import itertools
import os
import random

from fastapi import FastAPI, WebSocket, status

INTERVAL = float(os.environ.get("INTERVAL", "1.0"))  # seconds
LENGTH = int(os.environ.get("LENGTH", "8"))  # characters of a tremor

app = FastAPI()

numbers = itertools.count(1)


def measure() -> str:
    """Take a reading, which costs some of the battery."""
    tremor = random.randbytes(LENGTH // 2).hex()
    return f"{next(numbers)}: {tremor}"


@app.websocket("/volcano")
async def volcano(websocket: WebSocket) -> None:
    await websocket.accept()
    # TODO 1: send the newest reading at once, and then each as it is taken, once for all.
    # TODO 2: read what the listener says, and end when the listener leaves.
    # TODO 3: take no readings while nobody listens.
    # TODO 4: let nobody wait for a slow listener, and keep no backlog for it.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 1 is still to do")
