"""A laboratory that reads the badge of whoever comes in.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

import os

from fastapi import FastAPI, WebSocket, status

SECRET_KEY = os.environ.get("SECRET_KEY", "for my own tries, and never for others")

app = FastAPI()


@app.websocket("/lab/{room}")
async def lab(websocket: WebSocket, room: str) -> None:
    await websocket.accept()
    # TODO 1: answer whoever has a good badge; close with 4001 if it is none.
    # TODO 2: keep guests out of the offices of others, with 4003.
    # TODO 3: read the cookie, too, unless it comes from a page of another site.
    # TODO 4: close with 4001 when the badge runs out.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 1 is still to do")
