"""A library that tells its readers, and keeps what they could not hear.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

from fastapi import FastAPI, HTTPException, WebSocket, status

KEPT = 20  # notes of one reader that nobody has heard

app = FastAPI()


@app.post("/readers/{reader}/notes", status_code=status.HTTP_201_CREATED)
async def post(reader: str) -> None:
    # TODO 1: answer with the numbered note, and send it to every tab of the reader.
    # TODO 2: keep what nobody hears for the next tab that opens, KEPT notes at most.
    # TODO 4: wait for no tab.
    raise HTTPException(status.HTTP_501_NOT_IMPLEMENTED, "task 1 is still to do")


@app.websocket("/readers/{reader}")
async def listen(websocket: WebSocket, reader: str) -> None:
    await websocket.accept()
    # TODO 3: count a note as delivered when it was sent, and end with the connection.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 1 is still to do")
