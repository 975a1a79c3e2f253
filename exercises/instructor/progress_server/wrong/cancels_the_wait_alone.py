"""Gives a thread the whole film, and cancels no more than the wait for it.

The prints come through a queue, one by one; the thread goes on when its customer has left.

fails: test_leaving_ends_the_work
outcome: unexpected message
advice: give it one print at a time
"""

import asyncio
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


async def drain(websocket: WebSocket) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


async def print_film(websocket: WebSocket, name: str, count: int) -> None:
    pictures: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def develop_all() -> None:
        for number in range(1, count + 1):
            picture = develop(name, number)
            loop.call_soon_threadsafe(pictures.put_nowait, picture)

    work = asyncio.create_task(asyncio.to_thread(develop_all))
    try:
        for number in range(1, count + 1):
            await websocket.send_text(f"{number} of {count}: {await pictures.get()}")
        await websocket.close(status.WS_1000_NORMAL_CLOSURE)
    finally:
        work.cancel()


@app.websocket("/film/{name}/{count}")
async def film(websocket: WebSocket, name: str, count: int) -> None:
    global films
    await websocket.accept()
    films += 1
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(print_film(websocket, name, count))
            tasks.create_task(drain(websocket))
    except* (WebSocketDisconnect, RuntimeError):
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
