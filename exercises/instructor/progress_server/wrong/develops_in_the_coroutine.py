"""Does the work in the handler itself, between two awaits.

fails: test_the_counter_answers_in_the_middle_of_a_print
outcome: event loop blocked
advice: let a worker thread do it
"""

import hashlib
import os
import threading

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

ROUNDS = int(os.environ.get("ROUNDS", "500000"))  # how much work a print is

app = FastAPI()

made = 0  # prints since the server started
films = 0
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
    global films
    await websocket.accept()
    films += 1
    try:
        for number in range(1, count + 1):
            picture = develop(name, number)
            await websocket.send_text(f"{number} of {count}: {picture}")
        await websocket.close(status.WS_1000_NORMAL_CLOSURE)
    except WebSocketDisconnect:
        pass
    finally:
        films -= 1


@app.websocket("/counter")
async def counter(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.receive_text()
            await websocket.send_json({"films": films, "prints": made})
    except WebSocketDisconnect:
        pass
