"""Sends what is new from the POST, while the handler still sends what was kept.

fails: test_new_notes_come_after_the_kept_ones
outcome: wrong message
advice: send both through one job
"""

from collections import defaultdict, deque
from contextlib import suppress
from typing import Annotated

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status
from pydantic import BaseModel, Field

app = FastAPI()
posted: defaultdict[str, int] = defaultdict(int)
kept: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=20))
tabs: defaultdict[str, set[WebSocket]] = defaultdict(set)


class NewNote(BaseModel):
    text: Annotated[str, Field(min_length=1)]


class Note(BaseModel):
    number: int
    text: str


@app.post("/readers/{reader}/notes", status_code=status.HTTP_201_CREATED)
async def post(reader: str, new: NewNote) -> Note:
    posted[reader] += 1
    note = Note(number=posted[reader], text=new.text)
    if not tabs[reader]:
        kept[reader].append(note.model_dump_json())
    for tab in list(tabs[reader]):
        with suppress(WebSocketDisconnect, RuntimeError):
            await tab.send_text(note.model_dump_json())
    return note


@app.websocket("/readers/{reader}")
async def listen(websocket: WebSocket, reader: str) -> None:
    await websocket.accept()
    tabs[reader].add(websocket)
    try:
        while kept[reader]:
            await websocket.send_text(kept[reader][0])
            kept[reader].popleft()
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("text") == "ping":
                await websocket.send_text("pong")
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        tabs[reader].discard(websocket)
