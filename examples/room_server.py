"""Rooms: who is here, what they say to all, and what they say in private, as typed JSON.

On `/ws/chat/{room_id}/{user_id}` every message is a JSON object with a `type`. Joining:
everybody in the room gets `join` with the users now in it. Leaving: the rest get `leave`.
`{"type": "message", "content": c}`, whose `type` may be left out, reaches everybody;
`{"type": "private", "to": v, "content": c}` all tabs of `v` alone; other keys are ignored.
Anything else, binary too, is answered with an `error`, and the connection lives on; only a
text over LONGEST closes it, with 1009. All tabs of one name are one user: another tab gets
a `join` of its own, and nobody else hears of it. Nobody checks who a user really is.

In the folder examples:

    uvicorn room_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or use two terminals:

    python -m websockets ws://127.0.0.1:8000/ws/chat/kitchen/ana

A tab for which BACKLOG messages wait is closed with 1013. The rooms live in this process.
Notebook: notebooks/05_room_server.ipynb. Exercise: exercises/room_server.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

PAGE = Path(__file__).with_suffix(".html")
LONGEST = 64 * 1024  # characters of one text
BACKLOG = 1000  # messages that may wait for one client; all queues hold the same texts
PAUSE = 0.01  # seconds, before the server checks again whether a client has caught up
CLOSE_TIMEOUT = 2.0  # seconds for each of the two waits at the end of a conversation

app = FastAPI()

# A longer name is refused in the opening handshake: a `join` holds the names of all users.
RoomId = Annotated[str, StringConstraints(max_length=80)]
UserId = Annotated[str, StringConstraints(max_length=64)]


# What a client may say.
class SendMessage(BaseModel):
    type: Literal["message"]
    content: str


class SendPrivate(BaseModel):
    type: Literal["private"]
    to: str
    content: str


# What the server says.
class Join(BaseModel):
    type: Literal["join"] = "join"
    user: str
    users: list[str]


class Leave(BaseModel):
    type: Literal["leave"] = "leave"
    user: str


class Message(BaseModel):
    type: Literal["message"] = "message"
    user: str
    content: str


class Private(BaseModel):
    type: Literal["private"] = "private"
    sender: str = Field(serialization_alias="from")  # a keyword of Python
    content: str


class Error(BaseModel):
    type: Literal["error"] = "error"
    message: str


def with_type(said: object) -> object:
    return {"type": "message"} | said if isinstance(said, dict) else said


# `type` chooses the model that has to fit; where it is left out, with_type() puts it in.
Said = SendMessage | SendPrivate
parser: TypeAdapter[Said] = TypeAdapter(
    Annotated[Said, Field(discriminator="type"), BeforeValidator(with_type)]
)


def understand(text: str | None) -> Said | Error:
    """Return what a client says, or else an error that tells it what is wrong."""
    if text is None:
        return Error(message="Expected a text message, not a binary one")
    try:
        return parser.validate_json(text)
    except ValidationError as invalid:
        error = invalid.errors(include_input=False)[0]
    if error["type"] == "json_invalid":
        return Error(message=error["msg"])
    if error["loc"]:
        return Error(message=f"{error['loc'][-1]}: {error['msg']}")
    # Pydantic's own words would repeat the wrong type, however long it is.
    return Error(message='Expected an object whose type is "message" or "private"')


# Member is the one of chat_server: only __init__ and read() differ.
class Member:
    """A tab of a user: two tasks, and a queue of messages for the tab."""

    def __init__(self, websocket: WebSocket, room: set["Member"], user: str) -> None:
        self.websocket, self.room, self.user = websocket, room, user
        self.queue: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        self.reader = asyncio.create_task(self.read())
        self.writer = asyncio.create_task(self.write())

    async def read(self) -> None:
        """Answer what the client says, until it leaves or breaks a rule."""
        while True:
            said = understand(await receive_text(self.websocket))
            answer(self, said)
            if isinstance(said, SendPrivate):
                await give_way(tabs(self.room, said.to))
            await self.catch_up()

    async def catch_up(self) -> None:
        """Read nothing more from the client while more than half of its queue is in use."""
        # A speaker hears its own words, too. If they wait in its queue, it speaks faster
        # than they can be sent. While it has to wait, all can catch up, and the other half
        # of each queue is for what others say.
        while self.queue.qsize() > BACKLOG // 2 and not self.writer.done():
            await asyncio.sleep(PAUSE)

    async def write(self) -> None:
        """Send what is in the queue, as fast as the client reads."""
        # Sending to a client that has gone raises one of these; which one depends on who
        # noticed it first.
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await self.websocket.send_text(await self.queue.get())

    async def talk(self) -> None:
        """Wait until the conversation is over, then end both tasks."""
        try:
            tasks = [self.reader, self.writer]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # If the writer ended first, the client has gone. What it said before that is
            # still read.
            await asyncio.wait([self.reader], timeout=CLOSE_TIMEOUT)
        finally:
            self.reader.cancel()
            self.writer.cancel()

    async def close(self) -> None:
        """Close the connection with the code that says why, unless the client has gone."""
        await asyncio.wait([self.reader, self.writer])
        # result() raises what has ended a task. uvicorn logs what is not expected here.
        if not self.writer.cancelled():
            self.writer.result()
        try:
            self.reader.result()
        except WebSocketDisconnect:
            return
        except WebSocketException as refusal:
            code, reason = refusal.code, refusal.reason
        except asyncio.CancelledError:  # by broadcast(), unless the client has gone
            code, reason = status.WS_1013_TRY_AGAIN_LATER, "reads too slowly"
        # Closing waits for a client that does not read, so it has a limit.
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            await asyncio.wait_for(self.websocket.close(code, reason), CLOSE_TIMEOUT)


def broadcast(room: Iterable[Member], message: str) -> None:
    """Put a message into every member's queue. Nothing waits, so nobody comes or goes."""
    for member in room:
        try:
            member.queue.put_nowait(message)
        except asyncio.QueueFull:
            # The client reads too slowly: its own endpoint closes, with 1013.
            member.reader.cancel()


async def give_way(listeners: list[Member]) -> None:
    """Wait a moment if more than half of a listener's queue is in use."""
    # The speaker does not hear its private messages, so its own queue says nothing about
    # them. One PAUSE after a message is time enough for a listener that reads, and a
    # listener that never reads cannot delay the speaker by more than that.
    if any(listener.queue.qsize() > BACKLOG // 2 for listener in listeners):
        await asyncio.sleep(PAUSE)


async def receive_text(websocket: WebSocket) -> str | None:
    """Return the next text, None if it is binary, or raise why the conversation ends."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str | None = message.get("text")
    # This is checked before the text is parsed: to parse a huge one takes long.
    if text is not None and len(text) > LONGEST:
        raise WebSocketException(status.WS_1009_MESSAGE_TOO_BIG, "the text is too long")
    return text


# The rooms that are not empty, each with its open tabs. The functions below never wait, so
# no tab comes or goes while they run.
Room = set[Member]
rooms: dict[str, Room] = {}


def tabs(room: Room, user: str) -> list[Member]:
    return [member for member in room if member.user == user]


def tell(members: Iterable[Member], event: BaseModel) -> None:
    broadcast(members, event.model_dump_json(by_alias=True))


def join(member: Member) -> None:
    first = not tabs(member.room, member.user)
    member.room.add(member)
    users = sorted({tab.user for tab in member.room})
    tell(member.room if first else [member], Join(user=member.user, users=users))


def answer(member: Member, said: Said | Error) -> None:
    match said:
        case SendMessage():
            tell(member.room, Message(user=member.user, content=said.content))
        case SendPrivate() if listeners := tabs(member.room, said.to):
            tell(listeners, Private(sender=member.user, content=said.content))
        case SendPrivate():
            tell([member], Error(message=f"Nobody called {said.to:.50} is in this room"))
        case Error():
            tell([member], said)


def leave(member: Member) -> None:
    member.room.remove(member)
    if not tabs(member.room, member.user):
        tell(member.room, Leave(user=member.user))


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/chat/{room_id}/{user_id}")
async def chat(websocket: WebSocket, room_id: RoomId, user_id: UserId) -> None:
    await websocket.accept()
    room = rooms.setdefault(room_id, set())
    member = Member(websocket, room, user_id)
    join(member)
    try:
        await member.talk()
    finally:
        leave(member)
        if not room:
            del rooms[room_id]
    # Last, because it may take a while, and the others do not have to wait for it.
    await member.close()
