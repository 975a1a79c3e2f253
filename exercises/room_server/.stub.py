"""A games club where every table keeps to itself.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

from fastapi import FastAPI, WebSocket, status

app = FastAPI()


@app.websocket("/club/{table}/{player}")
async def club(websocket: WebSocket, table: str, player: str) -> None:
    await websocket.accept()
    # TODO 1: tell everybody at the table who comes, what is said, and who goes.
    # TODO 2: throw dice, and answer what makes no sense with an error.
    # TODO 3: let several tabs be one player, and whisper to one player alone.
    # TODO 4: forget a table when its last player has gone.
    await websocket.close(status.WS_1011_INTERNAL_ERROR, "task 1 is still to do")
