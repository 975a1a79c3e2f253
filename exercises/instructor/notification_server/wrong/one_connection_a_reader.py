"""Keeps one connection a reader, so that the second tab takes the place of the first.

fails: test_every_tab_of_the_reader_hears
outcome: silence
advice: not one connection a reader
"""

from collections import defaultdict, deque
from contextlib import suppress
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


connections: dict[str, WebSocket] = {}
posted: defaultdict[str, int] = defaultdict(int)
kept: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=KEPT))


@app.post("/readers/{reader}/notes", status_code=status.HTTP_201_CREATED)
async def post(reader: str, new: NewNote) -> Note:
    posted[reader] += 1
    note = Note(number=posted[reader], text=new.text)
    if reader in connections:
        await connections[reader].send_text(note.model_dump_json())
    else:
        kept[reader].append(note.model_dump_json())
    return note


@app.websocket("/readers/{reader}")
async def listen(websocket: WebSocket, reader: str) -> None:
    await websocket.accept()
    connections[reader] = websocket
    with suppress(WebSocketDisconnect):
        while kept[reader]:
            await websocket.send_text(kept[reader].popleft())
        while True:
            if await websocket.receive_text() == "ping":
                await websocket.send_text("pong")
    connections.pop(reader, None)
