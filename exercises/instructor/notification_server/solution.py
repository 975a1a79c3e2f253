"""A library that tells its readers, and keeps what they could not hear: one solution."""

import asyncio
from collections import defaultdict, deque
from typing import Annotated

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status
from pydantic import BaseModel, Field

KEPT = 20  # notes of one reader that nobody has heard
LARGEST = 1_000_000  # bytes of a body; many clients refuse a message of a mebibyte

# A larger body is refused before it is parsed: parsing it would hold up everybody.
app = FastAPI(max_body_size=LARGEST)


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


async def deliver(websocket: WebSocket, shelf: Shelf, news: asyncio.Event) -> None:
    """Send what was not delivered yet, and then whatever is new."""
    place = shelf.delivered
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
        # The end of the reading ends the sending: nothing outlives the connection.
        async with asyncio.TaskGroup() as jobs:
            jobs.create_task(deliver(websocket, shelf, news))
            await answer(websocket)
    except* (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        shelf.tabs.discard(news)
