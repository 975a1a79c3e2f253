"""Keeps every line, and forgets none.

fails: test_a_gap_is_told
outcome: wrong message
advice: 50 lines are kept, no more and no less
"""

import asyncio
import secrets
from typing import Annotated

from fastapi import FastAPI, Query, WebSocket, WebSocketDisconnect
from pydantic import BaseModel

EDITION = secrets.token_hex(8)

app = FastAPI()


class NewLine(BaseModel):
    text: str


class Line(BaseModel):
    kind: str = "line"
    number: int
    text: str


last = 0
kept: list[Line] = []
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
async def ticker(
    websocket: WebSocket,
    seen: Annotated[int | None, Query(ge=0)] = None,
    edition: Annotated[str, Query()] = EDITION,
) -> None:
    await websocket.accept()
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
