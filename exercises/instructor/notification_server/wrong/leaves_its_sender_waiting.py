"""Ends the handler when its tab has closed, and lets the task that sends wait on.

fails: test_nothing_takes_notes_for_a_closed_tab
outcome: silence
advice: end in `finally` whatever you started
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


class Shelf:
    """The newest notes for one reader, and how many were posted and delivered."""

    def __init__(self) -> None:
        self.notes: deque[Note] = deque(maxlen=KEPT)
        self.posted = 0
        self.delivered = 0
        self.tabs: set[asyncio.Event] = set()

    def put(self, text: str) -> Note:
        """Keep a note, and wake the tabs: each fetches it when it can."""
        self.posted += 1
        note = Note(number=self.posted, text=text)
        self.notes.append(note)
        for news in self.tabs:
            news.set()
        return note

    def after(self, number: int) -> Note | None:
        """The next note after this number, if there is one."""
        return next((note for note in self.notes if note.number > number), None)


shelves: defaultdict[str, Shelf] = defaultdict(Shelf)
senders: set[asyncio.Task[None]] = set()


async def deliver(websocket: WebSocket, shelf: Shelf, news: asyncio.Event) -> None:
    """Send what was not delivered yet, and then whatever is new."""
    place = shelf.delivered
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            news.clear()
            while note := shelf.after(place):
                await websocket.send_text(note.model_dump_json())
                # Not before: a tab that closes while it is sent would lose it.
                place = note.number
                shelf.delivered = max(shelf.delivered, place)
            await news.wait()


async def answer(websocket: WebSocket) -> None:
    """Answer pings, until the tab closes."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        if message.get("text") == "ping":
            await websocket.send_text("pong")


@app.post("/readers/{reader}/notes", status_code=status.HTTP_201_CREATED)
async def post(reader: str, new: NewNote) -> Note:
    return shelves[reader].put(new.text)


@app.websocket("/readers/{reader}")
async def listen(websocket: WebSocket, reader: str) -> None:
    await websocket.accept()
    shelf, news = shelves[reader], asyncio.Event()
    shelf.tabs.add(news)
    try:
        sender = asyncio.create_task(deliver(websocket, shelf, news))
        senders.add(sender)
        sender.add_done_callback(senders.discard)
        await answer(websocket)
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        shelf.tabs.discard(news)
