"""Has one queue for changes and pointers, and ends a connection whose queue is full.

fails: test_a_flood_of_pointers_costs_nothing
outcome: closed early
advice: no reason to close
"""

import asyncio
import json
from contextlib import suppress
from typing import Annotated, Literal

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

ROOM = 30  # notes on a wall
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
    """Somebody at a wall, and the messages that still wait to be sent there."""

    def __init__(self, websocket: WebSocket, who: str) -> None:
        self.websocket = websocket
        self.who = who
        self.waiting: asyncio.Queue[str] = asyncio.Queue(10)
        self.writer = asyncio.create_task(self.write())
        # A time limit without a deadline: giving it one evicts the member.
        self.stay = asyncio.timeout(None)

    def send(self, event: dict[str, object]) -> None:
        """Leave a message for the writer; who is too far behind is evicted."""
        try:
            self.waiting.put_nowait(json.dumps(event))
        except asyncio.QueueFull:
            if self.stay.when() is None:
                self.stay.reschedule(0)

    async def write(self) -> None:
        # When the line is cut, the endpoint learns of it while receiving.
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await self.websocket.send_text(await self.waiting.get())


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
                    other.send({"type": "pointed", "who": who, "x": x, "y": y})


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
        async with member.stay:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                try:
                    mine.take(member, understand(message.get("text")))
                except ValueError as error:
                    member.send({"type": "error", "reason": reason(error)})
    except TimeoutError:
        pass
    finally:
        mine.leave(member)
    if member.stay.expired():
        # Evicted. Even close() waits for ever on a client that does not read.
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            goodbye = websocket.close(status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
            await asyncio.wait_for(goodbye, CLOSE_TIMEOUT)
