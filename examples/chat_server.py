"""Chat: whatever one client says, everybody in the room hears.

A text message `T` is broadcast to all clients of the room, its sender included, as
`Client says: T`; when a client leaves, the rest hear `A client left the chat`. A binary
message closes the connection of its sender with code 1003.

    uvicorn chat_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or use two terminals:

    python -m websockets ws://127.0.0.1:8000/ws/chat

A client that stops reading delays nobody: once BACKLOG characters wait for it, it is
evicted with code 1013 (try again later). The rooms live in this process: two workers have
two of each. Notebook: notebooks/03_chat_server.ipynb. Exercise: exercises/chat_server.
"""

import asyncio
from collections import deque
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse

PAGE = Path(__file__).with_suffix(".html")
BACKLOG = 4 * 1024 * 1024  # characters that may wait for one client
CLOSE_TIMEOUT = 2.0  # seconds to reach an evicted client with the close frame

app = FastAPI()


class Member:
    """A client in a room, and the messages that still wait to be sent to it."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.waiting: deque[str] = deque()
        self.behind = 0  # characters in `waiting`
        self.writer: asyncio.Task[None] | None = None
        # A time limit without a deadline: giving it one evicts the member.
        self.stay = asyncio.timeout(None)

    def send(self, message: str) -> None:
        """Leave a message for the writer, without waiting for the client."""
        self.waiting.append(message)
        self.behind += len(message)
        # One writer at a time keeps the order; a member who is up to date needs none.
        if self.writer is None:
            self.writer = asyncio.create_task(self.write())

    async def write(self) -> None:
        # Sending to a client that has gone raises one of these. Its endpoint learns of
        # that from receive(), so there is nothing to do here.
        with suppress(WebSocketDisconnect, RuntimeError):
            while self.waiting:
                message = self.waiting.popleft()
                await self.websocket.send_text(message)
                self.behind -= len(message)
        self.writer = None


class Room:
    """Clients that hear each other; `prefix` stands before everything they hear."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.members: set[Member] = set()

    def leave(self, member: Member) -> None:
        self.members.discard(member)
        if member.writer:
            member.writer.cancel()

    def broadcast(self, message: str) -> None:
        """Send to everybody, and evict whoever is too far behind."""
        for member in list(self.members):
            if member.behind > BACKLOG:
                self.leave(member)
                member.stay.reschedule(0)
            else:
                member.send(self.prefix + message)


chat_room = Room()
additional_room = Room(prefix="(Additional) ")


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; close with 1003 if the client sends anything else."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    if message.get("text") is None:
        raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    return message["text"]


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


async def converse(websocket: WebSocket, room: Room) -> None:
    await websocket.accept()
    member = Member(websocket)
    room.members.add(member)
    try:
        async with member.stay:
            while True:
                room.broadcast(f"Client says: {await receive_text(websocket)}")
                # A flood of messages is read without a pause; the writers need one.
                await asyncio.sleep(0)
    except WebSocketDisconnect:
        pass
    except TimeoutError:
        # Evicted. Even close() waits for ever on a client that does not read.
        with suppress(TimeoutError, RuntimeError):
            goodbye = websocket.close(status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
            await asyncio.wait_for(goodbye, CLOSE_TIMEOUT)
    finally:
        room.leave(member)
        room.broadcast("A client left the chat")


@app.websocket("/ws/chat")
async def chat(websocket: WebSocket) -> None:
    await converse(websocket, chat_room)


@app.websocket("/ws/chat_additional")
async def chat_additional(websocket: WebSocket) -> None:
    await converse(websocket, additional_room)
