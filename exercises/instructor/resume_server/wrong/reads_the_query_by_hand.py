"""Turns the query into a number by hand, after accept and without a limit.

fails: test_a_senseless_number_is_refused
outcome: unexpected message
advice: declare `seen` with its type
"""

import asyncio
import secrets
from collections import deque

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel

KEEP = 50  # lines
EDITION = secrets.token_hex(8)

app = FastAPI()


class NewLine(BaseModel):
    text: str


class Line(BaseModel):
    kind: str = "line"
    number: int
    text: str


last = 0
kept: deque[Line] = deque(maxlen=KEEP)
readers: set[asyncio.Queue[Line]] = set()


@app.post("/lines", status_code=201)
async def post_line(new: NewLine) -> Line:
    global last
    last += 1
    line = Line(number=last, text=new.text)
    kept.append(line)
    for queue in readers:
        queue.put_nowait(line)
    return line


async def tell(websocket: WebSocket, old: list[Line], queue: asyncio.Queue[Line]) -> None:
    for line in old:
        await websocket.send_text(line.model_dump_json())
    while True:
        line = await queue.get()
        await websocket.send_text(line.model_dump_json())


async def drain(websocket: WebSocket) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


@app.websocket("/ticker")
async def ticker(websocket: WebSocket) -> None:
    await websocket.accept()
    query = websocket.query_params
    seen = int(query["seen"]) if "seen" in query else None
    edition = query.get("edition", EDITION)
    after = last if seen is None else seen
    complete = edition == EDITION and last - len(kept) <= after <= last
    if seen is None:
        complete = True
    old = [line for line in kept if line.number > after or not complete]
    queue: asyncio.Queue[Line] = asyncio.Queue()
    readers.add(queue)
    welcome = {"kind": "welcome", "edition": EDITION, "complete": complete}
    try:
        await websocket.send_json(welcome)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tell(websocket, old, queue))
            tasks.create_task(drain(websocket))
    except* (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        readers.discard(queue)
