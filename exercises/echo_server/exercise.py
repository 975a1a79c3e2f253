"""A parrot that answers everybody and keeps nobody waiting.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

from fastapi import FastAPI, WebSocket, status

app = FastAPI()


@app.websocket("/ws/parrot")
async def parrot(websocket: WebSocket) -> None:
    await websocket.accept()
    # TODO 1: answer every text, for as long as the visitor stays.
    # TODO 2: close with 1003 after a binary message; stay calm when visitors leave.
    # TODO 3: think half a second about `slow …`, and let nobody else wait for it.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 1 is still to do")
