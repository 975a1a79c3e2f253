"""A watch that notices who has fallen silent.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

import os

from fastapi import FastAPI, WebSocket, status

PATIENCE = float(os.environ.get("PATIENCE", "30"))  # seconds

app = FastAPI()


@app.websocket("/wall/{climber}")
async def wall(websocket: WebSocket, climber: str) -> None:
    await websocket.accept()
    # TODO 1: answer every text, and close with 4008 after PATIENCE seconds of silence.
    # TODO 2: ask after half of that time, once in each silence.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 1 is still to do")


@app.websocket("/base")
async def base(websocket: WebSocket) -> None:
    await websocket.accept()
    # TODO 3: say who is on the wall, then who comes, who goes and who falls silent.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 3 is still to do")
