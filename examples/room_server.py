"""Rooms: who is here, what they say to all, and a word in private, as typed JSON.

On `/ws/chat/{room_id}/{user_id}` everything said is a JSON object with a `type`. Joining:
everybody in the room gets `join` with the users now in it; leaving: the rest get `leave`.
`{"type": "message", "content": c}`, whose `type` may be left out, reaches everybody;
`{"type": "private", "to": v, "content": c}` all tabs of `v` alone; other keys are ignored.
Anything else, binary too, is answered with an `error`, and the connection lives on. Another
tab of a user gets a `join` too, and learns who is here; to the others it is no news.

    uvicorn room_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or use two terminals:

    python -m websockets ws://127.0.0.1:8000/ws/chat/kitchen/ana

Names are taken on trust. A tab that stops reading is evicted with 1013 once BACKLOG
characters wait for it.
Notebook: notebooks/05_room_server.ipynb. Exercise: exercises/room_server.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status
from fastapi.responses import FileResponse
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

PAGE = Path(__file__).with_suffix(".html")
BACKLOG = 4 * 1024 * 1024  # characters that may wait for one client
PACE = 16 * 1024 * 1024  # characters a second that one client may say
LONGEST = 2 * 1024 * 1024  # characters in a message; to parse more takes too long
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame

app = FastAPI()


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
    if text is None or len(text) > LONGEST:
        return Error(message=f"Expected a text of at most {LONGEST} characters")
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


# Member and broadcast() are those of chat_server.
class Member:
    """A tab of a user, and the messages that still wait to be sent to it."""

    def __init__(self, websocket: WebSocket, user: str) -> None:
        self.websocket = websocket
        self.user = user
        self.waiting: deque[str] = deque()
        self.behind = 0  # characters in `waiting`
        self.writer: asyncio.Task[None] | None = None
        # A time limit without a deadline: giving it one evicts the member.
        self.stay = asyncio.timeout(None)

    def keep(self, message: str) -> None:
        """Keep a message for the writer, or evict a member who is too far behind."""
        if self.behind <= BACKLOG:
            self.waiting.append(message)
            self.behind += len(message)
        elif self.stay.when() is None:
            self.stay.reschedule(0)

    async def write(
        self, sending: Coroutine[Any, Any, None], future: asyncio.Future[None] | None
    ) -> None:
        """Finish a send that waits for `future`, and then send what has been kept."""
        with suppress(WebSocketDisconnect, RuntimeError):
            if future:  # `None` is a turn of the event loop, which it has had by now
                await asyncio.wait([future])
            await asyncio.create_task(sending)
            while self.waiting:
                message = self.waiting.popleft()
                self.behind -= len(message)
                await self.websocket.send_text(message)
        self.writer = None


def broadcast(members: list[Member], message: str) -> None:
    """Send a message to members, and wait for none of them."""
    event = {"type": "websocket.send", "text": message}  # what send_text() would send
    for member in members:
        if member.writer:
            member.keep(message)
            continue
        sending = member.websocket.send(event)
        try:
            # Sending rarely has to wait: the operating system takes the message at once.
            # So it is begun without a task, as eager tasks of Python 3.12 are.
            future = sending.send(None)
        except StopIteration:
            pass  # The message is sent.
        except (WebSocketDisconnect, RuntimeError):
            pass  # The client has gone. Its endpoint learns of that from receive().
        else:
            member.writer = asyncio.create_task(member.write(sending, future))


# The rooms that are not empty, each the tabs that are open in it. Nothing below waits while
# it looks at a room, so nobody comes or goes meanwhile.
Room = list[Member]
rooms: dict[str, Room] = {}


def tabs(room: Room, user: str) -> list[Member]:
    return [member for member in room if member.user == user]


def tell(members: list[Member], event: BaseModel) -> None:
    broadcast(members, event.model_dump_json(by_alias=True))


def join(room_id: str, member: Member) -> Room:
    room = rooms.setdefault(room_id, [])
    first = not tabs(room, member.user)
    room.append(member)
    users = sorted({member.user for member in room})
    tell(room if first else [member], Join(user=member.user, users=users))
    return room


def answer(room: Room, member: Member, said: Said | Error) -> None:
    match said:
        case SendMessage():
            tell(room, Message(user=member.user, content=said.content))
        case SendPrivate() if listeners := tabs(room, said.to):
            tell(listeners, Private(sender=member.user, content=said.content))
        case SendPrivate():
            tell([member], Error(message=f"Nobody called {said.to:.50} is in this room"))
        case Error():
            tell([member], said)


def leave(room_id: str, member: Member) -> None:
    room = rooms[room_id]
    room.remove(member)
    if member.writer:
        member.writer.cancel()
    if not tabs(room, member.user):
        tell(room, Leave(user=member.user))
    if not room:
        del rooms[room_id]


async def receive_text(websocket: WebSocket) -> str | None:
    """Return the next text, or None if the client sends anything else."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    return message.get("text")


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close the connection, without waiting for ever on a client that does not read."""
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        await asyncio.wait_for(websocket.close(code, reason), CLOSE_TIMEOUT)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/chat/{room_id}/{user_id}")
async def chat(websocket: WebSocket, room_id: str, user_id: str) -> None:
    await websocket.accept()
    member = Member(websocket, user_id)
    room = join(room_id, member)
    try:
        async with member.stay:
            while True:
                text = await receive_text(websocket)
                answer(room, member, understand(text))
                # A flood that is read faster than others can take it would evict them.
                await asyncio.sleep(len(text or "") / PACE)
    except (WebSocketDisconnect, TimeoutError):
        pass
    finally:
        leave(room_id, member)
    # The others know by now: to reach this client may take a while.
    if member.stay.expired():
        await close(websocket, status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
