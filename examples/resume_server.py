"""Resume: a client that comes back hears what it missed, or that something is lost.

`WS /ws/events?last_id=n&epoch=e` begins with `{"type": "hello", "epoch": e, "recovered":
bool}`. The events after `n` follow, then each new one: `{"type": "event", "id": n, "data":
…}`. `POST /events` with `{"data": …}`, any JSON, makes an event. Ids count from 1 in each
epoch, and the life of a process is an epoch: this works with one worker only.

    uvicorn resume_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000, or run `python reconnecting_client.py`.

`recovered` is true if no event after `n` is missing: the last HISTORY events are kept. If
`n` lies in the future or in another epoch, it is false and all that is kept follows. A
newcomer leaves out `last_id` and so asks for all since 0; an id without an `epoch` is taken
for one of this epoch. A client too slow to follow is closed with 1013, and may resume.
Notebook: notebooks/14_resume_server.ipynb. Exercise: exercises/resume_server.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import (
    FastAPI,
    Query,
    Request,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, JsonValue, field_validator

PAGE = Path(__file__).with_suffix(".html")
EPOCH = secrets.token_hex(8)
HISTORY = 1000  # events that are kept
LARGEST = 64 * 1024  # bytes of JSON in one event; many clients refuse a mebibyte
BACKLOG = 4 * 1024 * 1024  # characters that may wait for one client
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame

app = FastAPI()


class Hello(BaseModel):
    type: Literal["hello"] = "hello"
    epoch: str
    recovered: bool


class NewEvent(BaseModel):
    data: JsonValue

    @field_validator("data")
    @classmethod
    def can_be_sent(cls, data: JsonValue) -> JsonValue:
        # Python reads NaN, 1e999 and half a surrogate pair as JSON. Other languages do
        # not: a client would fail on such an event, come back, and be sent it again.
        if len(json.dumps(data, allow_nan=False, ensure_ascii=False).encode()) > LARGEST:
            raise ValueError(f"an event has at most {LARGEST} bytes")
        return data


class Event(BaseModel):
    type: Literal["event"] = "event"
    id: int
    data: JsonValue


# Member and broadcast() are those of chat_server.
class Member:
    """A client that listens, and the messages that still wait to be sent to it."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.waiting: deque[str] = deque()
        self.behind = 0  # characters in `waiting`
        self.allowed = inf  # characters that it may be behind, without the replay
        self.writer: asyncio.Task[None] | None = None
        # A time limit without a deadline: giving it one evicts the member.
        self.stay = asyncio.timeout(None)

    def keep(self, message: str) -> None:
        """Keep a message for the writer, or evict a member who is too far behind."""
        if self.behind <= self.allowed:
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


class Stream:
    """Numbered events: the latest are kept, and every member hears each new one."""

    def __init__(self) -> None:
        self.last_id = 0
        self.kept: deque[tuple[int, str]] = deque(maxlen=HISTORY)
        self.members: list[Member] = []

    def join(self, member: Member, last_id: int, epoch: str | None) -> None:
        """Send a member what it missed; from now on it hears what is new."""
        forgotten = self.last_id - len(self.kept)  # the last id that is no longer kept
        ours = epoch in (None, EPOCH) and last_id <= self.last_id
        recovered = ours and last_id >= forgotten
        # Nothing in here waits, so no event can come between the replay and the live
        # ones, and be lost or sent twice.
        hello = Hello(epoch=EPOCH, recovered=recovered)
        broadcast([member], hello.model_dump_json())
        for event_id, message in self.kept:
            if event_id > last_id or not ours:
                broadcast([member], message)
        # What it missed while it was away is no sign of a slow reader.
        member.allowed = member.behind + BACKLOG
        self.members.append(member)

    def leave(self, member: Member) -> None:
        self.members.remove(member)
        if member.writer:
            member.writer.cancel()

    def post(self, data: JsonValue) -> Event:
        """Number an event, keep it, and send it to everybody."""
        self.last_id += 1
        event = Event(id=self.last_id, data=data)
        message = event.model_dump_json()
        self.kept.append((event.id, message))
        broadcast(self.members, message)
        return event


stream = Stream()


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; close with 1003 if the client sends anything else."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    if message.get("text") is None:
        raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    return message["text"]


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close the connection, without waiting for ever on a client that does not read."""
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        await asyncio.wait_for(websocket.close(code, reason), CLOSE_TIMEOUT)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.exception_handler(RequestValidationError)
async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
    # FastAPI's own answer repeats the input, which cannot be sent if it holds NaN.
    reasons = [reason["msg"] for reason in error.errors()]
    return JSONResponse({"detail": reasons}, status.HTTP_422_UNPROCESSABLE_CONTENT)


@app.post("/events", status_code=status.HTTP_201_CREATED)
async def post_event(new: NewEvent) -> Event:
    return stream.post(new.data)


@app.websocket("/ws/events")
async def events(
    websocket: WebSocket,
    last_id: Annotated[int, Query(ge=0)] = 0,
    epoch: Annotated[str | None, Query()] = None,
) -> None:
    await websocket.accept()
    member, end = Member(websocket), None
    stream.join(member, last_id, epoch)
    try:
        async with member.stay:
            while True:
                # Clients have nothing to say here. Reading tells the server that one left.
                await receive_text(websocket)
    except WebSocketDisconnect:
        pass
    except WebSocketException as refusal:
        end = refusal
    except TimeoutError:
        end = WebSocketException(status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
    finally:
        stream.leave(member)
    if end:
        await close(websocket, end.code, end.reason)
