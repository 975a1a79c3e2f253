"""Gives everybody a place where changes wait, and no bound to it.

fails: test_who_is_too_far_behind_is_closed
outcome: unexpected message
advice: bound the place where changes wait
"""

import asyncio
import json
from collections import deque
from contextlib import suppress
from typing import Annotated, Literal

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

ROOM = 30  # notes on a wall

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
    """Somebody at a wall, and the messages that still wait to be sent there."""

    def __init__(self, websocket: WebSocket, who: str) -> None:
        self.websocket = websocket
        self.who = who
        self.waiting: deque[str] = deque()
        self.pointers: dict[str, str] = {}  # the newest of each other name
        self.writer: asyncio.Task[None] | None = None

    def send(self, event: dict[str, object]) -> None:
        """Leave a message for the writer."""
        self.waiting.append(json.dumps(event))
        self.wake()

    def point(self, who: str, event: dict[str, object]) -> None:
        """Leave a pointer in the place of the last one of that name."""
        self.pointers[who] = json.dumps(event)
        self.wake()

    def wake(self) -> None:
        if self.writer is None:
            self.writer = asyncio.create_task(self.write())

    async def write(self) -> None:
        # When the line is cut, the endpoint learns of it while receiving.
        with suppress(WebSocketDisconnect, RuntimeError):
            while self.waiting or self.pointers:
                if self.waiting:
                    await self.websocket.send_text(self.waiting.popleft())
                else:
                    longest = next(iter(self.pointers))
                    await self.websocket.send_text(self.pointers.pop(longest))
        self.writer = None


class Wall:
    """Notes, and who sees them. Nothing in here awaits, so nothing comes between."""

    def __init__(self) -> None:
        self.members: set[Member] = set()
        self.notes: dict[int, dict[str, object]] = {}
        self.last_id = 0

    def join(self, member: Member) -> None:
        self.members.add(member)
        member.send({"type": "wall", "notes": list(self.notes.values())})

    def leave(self, member: Member) -> None:
        self.members.discard(member)
        if member.writer:
            member.writer.cancel()

    def tell(self, event: dict[str, object]) -> None:
        for member in self.members:
            member.send(event)

    def note(self, number: int) -> dict[str, object]:
        if number not in self.notes:
            raise ValueError(f"no note {number} on this wall")
        return self.notes[number]

    def take(self, member: Member, request: Request) -> None:
        """Do what somebody asks for; raise ValueError if that cannot be."""
        match request:
            case Pin(text=text, x=x, y=y):
                if len(self.notes) == ROOM:
                    raise ValueError("the wall is full")
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
                for other in self.members - {member}:
                    other.point(who, {"type": "pointed", "who": who, "x": x, "y": y})


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
    member = Member(websocket, who)
    mine.join(member)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            try:
                mine.take(member, understand(message.get("text")))
            except ValueError as error:
                member.send({"type": "error", "reason": reason(error)})
            # Messages that arrive together are read without a pause; the writers need one.
            await asyncio.sleep(0)
    finally:
        mine.leave(member)
