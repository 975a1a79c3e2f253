"""Starts a task that listens for a tab, and never ends it.

fails: test_nothing_takes_notes_for_a_closed_tab
outcome: wrong message
advice: something still listens for a tab that has closed
"""

import asyncio
from collections import defaultdict, deque
from typing import Annotated

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status
from pydantic import BaseModel, Field

KEPT = 20  # notes of one reader that nobody has heard

app = FastAPI()


class NewNote(BaseModel):
    text: Annotated[str, Field(min_length=1)]


class Note(BaseModel):
    number: int
    text: str


posted: defaultdict[str, int] = defaultdict(int)
kept: defaultdict[str, deque[Note]] = defaultdict(lambda: deque(maxlen=KEPT))
queues: defaultdict[str, set[asyncio.Queue[Note]]] = defaultdict(set)
listeners: set[asyncio.Task[None]] = set()


async def push(websocket: WebSocket, reader: str, queue: asyncio.Queue[Note]) -> None:
    try:
        while kept[reader]:
            await websocket.send_text(kept[reader][0].model_dump_json())
            kept[reader].popleft()
        while True:
            note = await queue.get()
            await websocket.send_text(note.model_dump_json())
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        queues[reader].discard(queue)


@app.post("/readers/{reader}/notes", status_code=status.HTTP_201_CREATED)
async def post(reader: str, new: NewNote) -> Note:
    posted[reader] += 1
    note = Note(number=posted[reader], text=new.text)
    for queue in queues[reader]:
        queue.put_nowait(note)
    if not queues[reader]:
        kept[reader].append(note)
    return note


@app.websocket("/readers/{reader}")
async def listen(websocket: WebSocket, reader: str) -> None:
    await websocket.accept()
    queue: asyncio.Queue[Note] = asyncio.Queue()
    queues[reader].add(queue)
    listener = asyncio.create_task(push(websocket, reader, queue))
    listeners.add(listener)
    listener.add_done_callback(listeners.discard)
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            break
        if message.get("text") == "ping":
            await websocket.send_text("pong")
