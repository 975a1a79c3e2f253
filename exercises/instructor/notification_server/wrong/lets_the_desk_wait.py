"""Sends from the POST, in order thanks to a lock, and so waits for the slowest tab.

fails: test_a_tab_that_stops_reading_delays_nobody
outcome: silence
advice: the POST only leaves the note
"""

import asyncio
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


posted: defaultdict[str, int] = defaultdict(int)
kept: defaultdict[str, deque[Note]] = defaultdict(lambda: deque(maxlen=KEPT))
tabs: defaultdict[str, set[WebSocket]] = defaultdict(set)
locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)


@app.post("/readers/{reader}/notes", status_code=status.HTTP_201_CREATED)
async def post(reader: str, new: NewNote) -> Note:
    posted[reader] += 1
    note = Note(number=posted[reader], text=new.text)
    async with locks[reader]:
        for tab in list(tabs[reader]):
            with suppress(WebSocketDisconnect, RuntimeError):
                await tab.send_text(note.model_dump_json())
        if not tabs[reader]:
            kept[reader].append(note)
    return note


@app.websocket("/readers/{reader}")
async def listen(websocket: WebSocket, reader: str) -> None:
    await websocket.accept()
    try:
        async with locks[reader]:
            tabs[reader].add(websocket)
            while kept[reader]:
                await websocket.send_text(kept[reader][0].model_dump_json())
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
