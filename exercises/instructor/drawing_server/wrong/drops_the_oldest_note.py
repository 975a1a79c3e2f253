"""Makes room on a full wall, and tells nobody which note it dropped.

fails: test_a_full_wall_refuses
outcome: wrong message
advice: its sender alone hears an error
"""

import asyncio
import json
from contextlib import suppress
from typing import Annotated, Literal

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

ROOM = 30  # notes on a wall
BACKLOG = 1000  # changes that may wait for one client; all clients share their memory
PAUSE = 0.01  # seconds, before the server looks again whether a client has caught up
CLOSE_TIMEOUT = 2.0  # seconds to reach an evicted client with the close frame

Place = Annotated[int, Field(ge=0, le=999)]

app = FastAPI()


class Pin(BaseModel):
    type: Literal["pin"]
    text: Annotated[str, Field(max_length=100_000)]
    x: Place
    y: Place


class Move(BaseModel):
    type: Literal["move"]
    id: int
    x: Place
    y: Place


class Tear(BaseModel):
    type: Literal["tear"]
    id: int


class Clear(BaseModel):
    type: Literal["clear"]


class Point(BaseModel):
    type: Literal["point"]
    x: Place
    y: Place


Request = Annotated[Pin | Move | Tear | Clear | Point, Field(discriminator="type")]
requests: TypeAdapter[Request] = TypeAdapter(Request)


class Member:
    """Somebody at a wall: two tasks, a queue of changes, and pointers."""

    def __init__(self, websocket: WebSocket, who: str, wall: "Wall") -> None:
        self.websocket, self.who, self.wall = websocket, who, wall
        self.queue: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        self.pointers: dict[str, str] = {}  # the newest of each other name
        self.reader = asyncio.create_task(self.read())
        self.writer = asyncio.create_task(self.write())

    def send(self, message: str) -> None:
        """Leave a message for the writer, or evict a member who is too far behind."""
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.reader.cancel()

    def point(self, who: str, message: str) -> None:
        """Leave a pointer in the place of the last one of that name."""
        self.pointers[who] = message
        if self.queue.empty():
            self.queue.put_nowait("")  # The writer wakes, and finds a pointer.

    async def read(self) -> None:
        """Do what the client asks for, until it leaves."""
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                self.wall.take(self, understand(message.get("text")))
            except ValueError as error:
                self.send(json.dumps({"type": "error", "reason": reason(error)}))
            # A client that is behind with its own changes is not read until it catches up.
            while self.queue.qsize() > BACKLOG // 2 and not self.writer.done():
                await asyncio.sleep(PAUSE)

    async def write(self) -> None:
        """Send the changes, and where none waits, the pointers."""
        # When the line is cut, the reader learns of it too.
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                if self.queue.empty() and self.pointers:
                    longest = next(iter(self.pointers))
                    await self.websocket.send_text(self.pointers.pop(longest))
                elif change := await self.queue.get():
                    await self.websocket.send_text(change)


class Wall:
    """Notes, and who sees them. Nothing in here awaits, so nothing comes between."""

    def __init__(self) -> None:
        self.members: set[Member] = set()
        self.notes: dict[int, dict[str, object]] = {}
        self.last_id = 0

    def join(self, member: Member) -> None:
        self.members.add(member)
        member.send(json.dumps({"type": "wall", "notes": list(self.notes.values())}))

    def tell(self, event: dict[str, object]) -> None:
        message = json.dumps(event)
        for member in self.members:
            member.send(message)

    def note(self, number: int) -> dict[str, object]:
        if number not in self.notes:
            raise ValueError(f"no note {number} on this wall")
        return self.notes[number]

    def take(self, member: Member, request: Request) -> None:
        """Do what somebody asks for; raise ValueError if that cannot be."""
        match request:
            case Pin(text=text, x=x, y=y):
                if len(self.notes) == ROOM:
                    del self.notes[min(self.notes)]
                self.last_id += 1
                note: dict[str, object] = {"id": self.last_id, "text": text, "x": x, "y": y}
                self.notes[self.last_id] = note
                self.tell({"type": "pinned"} | note)
            case Move(id=number, x=x, y=y):
                self.note(number).update(x=x, y=y)
                self.tell({"type": "moved", "id": number, "x": x, "y": y})
            case Tear(id=number):
                self.note(number)
                del self.notes[number]
                self.tell({"type": "torn", "id": number})
            case Clear():
                self.notes.clear()
                self.tell({"type": "cleared"})
            case Point(x=x, y=y):
                who = member.who
                pointer = json.dumps({"type": "pointed", "who": who, "x": x, "y": y})
                for other in self.members - {member}:
                    other.point(who, pointer)


walls: dict[str, Wall] = {}


def understand(text: str | None) -> Request:
    if text is None:
        raise ValueError("text messages only")
    return requests.validate_json(text)


def reason(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors(include_input=False)[0]["msg"])
    return str(error)


@app.websocket("/walls/{wall}/{who}")
async def note_wall(websocket: WebSocket, wall: str, who: str) -> None:
    await websocket.accept()
    mine = walls.setdefault(wall, Wall())
    member = Member(websocket, who, mine)
    mine.join(member)
    try:
        await asyncio.wait([member.reader])
    finally:
        mine.members.remove(member)
        member.reader.cancel()
        member.writer.cancel()
    if member.reader.cancelled():
        # Evicted. Even close() waits without end on a client that does not read.
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            goodbye = websocket.close(status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
            await asyncio.wait_for(goodbye, CLOSE_TIMEOUT)
    else:
        member.reader.result()  # Raises what nobody expected, and uvicorn logs it.
