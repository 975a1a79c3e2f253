"""A match ticker that a tunnel cannot interrupt: one possible solution."""

import asyncio
import secrets
from collections import deque
from typing import Annotated, Literal

from fastapi import FastAPI, Query, WebSocket, WebSocketDisconnect, status
from pydantic import BaseModel

KEEP = 50  # lines
EDITION = secrets.token_hex(8)
LARGEST = 1_000_000  # bytes of a body; many clients refuse a message of a mebibyte

# A larger body is refused before it is parsed: parsing it would hold up all readers.
app = FastAPI(max_body_size=LARGEST)


class NewLine(BaseModel):
    text: str


class Line(BaseModel):
    kind: Literal["line"] = "line"
    number: int
    text: str


class Welcome(BaseModel):
    kind: Literal["welcome"] = "welcome"
    edition: str = EDITION
    complete: bool


class Ticker:
    """The latest lines, and how many there were."""

    def __init__(self) -> None:
        self.last = 0
        self.kept: deque[Line] = deque(maxlen=KEEP)
        self.news = asyncio.Event()

    @property
    def forgotten(self) -> int:
        """The number of the last line that is no longer kept."""
        return self.last - len(self.kept)

    def post(self, text: str) -> Line:
        self.last += 1
        line = Line(number=self.last, text=text)
        self.kept.append(line)
        # All who wait for this event go on; those who come later wait for the next.
        self.news.set()
        self.news = asyncio.Event()
        return line

    def start(self, seen: int | None, edition: str | None) -> tuple[int, bool]:
        """Return after which line a reader begins, and whether none is missing."""
        if seen is None:
            return self.last, True
        if edition in (None, EDITION) and self.forgotten <= seen <= self.last:
            return seen, True
        return self.forgotten, False


ticker = Ticker()


async def tell(websocket: WebSocket, seen: int) -> None:
    """Send every line after `seen`, those that are kept and those to come."""
    # Each reader is a number. Nothing is told to it, so that nothing can be told twice or
    # too early: it fetches the next line when it has sent the one before.
    while seen >= ticker.forgotten:
        if seen == ticker.last:
            await ticker.news.wait()
            continue
        line = ticker.kept[seen - ticker.forgotten]
        await websocket.send_text(line.model_dump_json())
        seen = line.number
    await websocket.close(status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")


async def drain(websocket: WebSocket) -> None:
    """Read and ignore what a reader says, until it has left."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


@app.post("/lines", status_code=status.HTTP_201_CREATED)
async def post_line(new: NewLine) -> Line:
    return ticker.post(new.text)


@app.websocket("/ticker")
async def read(
    websocket: WebSocket,
    seen: Annotated[int | None, Query(ge=0)] = None,
    edition: Annotated[str | None, Query()] = None,
) -> None:
    await websocket.accept()
    start, complete = ticker.start(seen, edition)
    try:
        await websocket.send_text(Welcome(complete=complete).model_dump_json())
        # The end of the one job ends the other: drain() raises when the reader has left.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tell(websocket, start))
            await drain(websocket)
    except* (WebSocketDisconnect, RuntimeError):
        pass
