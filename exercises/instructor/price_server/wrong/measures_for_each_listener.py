"""Takes readings in each handler, as the popular tutorials do.

fails: test_who_comes_hears_the_newest_at_once
outcome: wrong message
advice: not in each handler
"""

import asyncio
import itertools
import os
import random

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

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
    try:
        while True:
            await websocket.send_text(measure())
            await asyncio.sleep(INTERVAL)
    except WebSocketDisconnect:
        pass
