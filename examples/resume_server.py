"""Resume: a client that comes back hears what it missed, or that something is lost.

`WS /ws/events?last_id=n&epoch=e` begins with `{"type": "hello", "epoch": e, "recovered":
bool}`. The events after `n` follow, then each new one: `{"type": "event", "id": n, "data":
…}`. `POST /events` with `{"data": …}`, any JSON of at most LARGEST bytes, makes an event; a
much larger body is 413, what is no event 422. Ids count from 1 in each epoch, and an epoch
is the life of a process: this works with one worker only. In the folder examples:

    uvicorn resume_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000, or run `python reconnecting_client.py`.

`recovered` is true if no event after `n` is missing: the last HISTORY events are kept. If
`n` lies in the future or in another epoch, it is false and all that is kept follows. A
newcomer leaves out `last_id` and so asks for all since 0; an id without an `epoch` is taken
for one of this epoch. A text of a client is ignored, a binary message closes with 1003. A
client for which BACKLOG new events wait is closed with 1013, and may come back.
Notebook: notebooks/14_resume_server.ipynb. Exercise: exercises/resume_server.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

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
BACKLOG = 1000  # new events that may wait for one client; all clients share their memory
CLOSE_TIMEOUT = 2.0  # seconds for each of the two waits at the end of a conversation

# A larger body is refused before it is read: parsing it would hold up all clients.
app = FastAPI(max_body_size=LARGEST + 1024)


class Hello(BaseModel):
    type: Literal["hello"] = "hello"
    epoch: str
    recovered: bool


class Event(BaseModel):
    type: Literal["event"] = "event"
    id: int
    data: JsonValue


class NewEvent(BaseModel):
    data: JsonValue

    @field_validator("data")
    @classmethod
    def can_be_sent(cls, data: JsonValue) -> JsonValue:
        # Python reads NaN, 1e999 and half a surrogate pair as JSON. Other languages do
        # not: a client would fail on such an event, come back, and be sent it again.
        text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        if len(text.encode()) > LARGEST:
            raise ValueError(f"an event has at most {LARGEST} bytes")
        Event(id=0, data=data).model_dump_json()  # Or it is nested too deeply.
        return data


# Member is the one of chat_server: only __init__ and read() differ. Nobody here speaks to
# others, so there is no catch_up().
class Member:
    """A client that listens: two tasks, and a queue of messages for the client."""

    def __init__(self, websocket: WebSocket, missed: list[str]) -> None:
        self.websocket = websocket
        # What it missed while it was away is no sign of a slow reader.
        self.queue: asyncio.Queue[str] = asyncio.Queue(len(missed) + BACKLOG)
        for message in missed:
            self.queue.put_nowait(message)
        self.reader = asyncio.create_task(self.read())
        self.writer = asyncio.create_task(self.write())

    async def read(self) -> None:
        """Ignore what the client says, until it leaves or breaks a rule."""
        # Only a server that reads learns that a client has left.
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            if message.get("text") is None:
                code, reason = status.WS_1003_UNSUPPORTED_DATA, "text messages only"
                raise WebSocketException(code, reason)
            # Messages that arrive together are read without a pause: others need a turn.
            await asyncio.sleep(0)

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


class Stream:
    """Numbered events: the latest are kept, and every member hears each new one."""

    def __init__(self) -> None:
        self.last_id = 0
        self.kept: deque[tuple[int, str]] = deque(maxlen=HISTORY)
        self.members: set[Member] = set()

    def since(self, last_id: int, epoch: str | None) -> list[str]:
        """Return the hello for a client, and what it missed."""
        forgotten = self.last_id - len(self.kept)  # the last id that is no longer kept
        ours = epoch in (None, EPOCH) and last_id <= self.last_id
        hello = Hello(epoch=EPOCH, recovered=ours and last_id >= forgotten)
        missed = [text for n, text in self.kept if n > last_id or not ours]
        return [hello.model_dump_json(), *missed]

    def post(self, data: JsonValue) -> Event:
        """Number an event, keep it, and send it to everybody."""
        self.last_id += 1
        event = Event(id=self.last_id, data=data)
        message = event.model_dump_json()
        self.kept.append((event.id, message))
        broadcast(self.members, message)
        return event


stream = Stream()


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.exception_handler(RequestValidationError)
@app.exception_handler(status.HTTP_400_BAD_REQUEST)
async def refuse(request: Request, error: Exception) -> JSONResponse:
    # FastAPI's own answer repeats the input, which cannot be sent if it holds NaN. And it
    # is 400 for some bodies that cannot be read.
    reasons = ["this cannot be read as JSON"]
    if isinstance(error, RequestValidationError):
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
    # Nothing waits from here to talk(), so no event can come between the replay and the
    # live ones, and be lost or sent twice.
    member = Member(websocket, stream.since(last_id, epoch))
    stream.members.add(member)
    try:
        await member.talk()
    finally:
        stream.members.remove(member)
    await member.close()
