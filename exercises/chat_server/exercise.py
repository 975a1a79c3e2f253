"""A stage whose audience cannot stop the show.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

from fastapi import FastAPI, WebSocket, status

app = FastAPI()


@app.websocket("/ws/stage")
async def stage(websocket: WebSocket) -> None:
    await websocket.accept()
    # TODO 1: send every text to everybody, and tell the rest when a guest leaves.
    # TODO 2: let no guest's failure reach another guest.
    # TODO 3: let no guest wait for another's telephone.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 1 is still to do")
