"""Chat: everybody in a room hears what one client says.

A text message `T` is sent to all clients of the room, also to its sender, as
`Client says: T`. When a client leaves, the others hear `A client left the chat`. A binary
message closes the connection of its sender with code 1003, and a text longer than LONGEST
with 1009. A second room, /ws/chat_additional, says `(Additional) ` before each text.

In the folder examples:

    uvicorn chat_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or use two terminals:

    python -m websockets ws://127.0.0.1:8000/ws/chat

Each client has a queue, and a task that sends what is in it. Sending waits for a client
that reads slowly, but only this task waits. If BACKLOG messages wait already when the next
one comes, the server closes with 1013 (try again later); the client gets this code if it
begins to read within CLOSE_TIMEOUT. After Ctrl-C, --timeout-graceful-shutdown ends the
server even if a client does not read. The rooms live in one process: clients of two workers
would not hear each other.
Notebook: notebooks/03_chat_server.ipynb. Exercise: exercises/chat_server.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse

PAGE = Path(__file__).with_suffix(".html")
LONGEST = 64 * 1024  # characters of one text
BACKLOG = 1000  # messages that may wait for one client; all queues hold the same texts
PAUSE = 0.01  # seconds, before the server checks again whether a client has caught up
CLOSE_TIMEOUT = 2.0  # seconds for each of the two waits at the end of a conversation

app = FastAPI()


class Member:
    """A client in a room: two tasks, and a queue of messages for the client."""

    def __init__(self, websocket: WebSocket, room: set["Member"], prefix: str) -> None:
        self.websocket, self.room, self.prefix = websocket, room, prefix
        self.queue: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        # The tasks begin at the next await: by then the client is in the room.
        self.reader = asyncio.create_task(self.read())
        self.writer = asyncio.create_task(self.write())

    async def read(self) -> None:
        """Broadcast what the client says, until it leaves or breaks a rule."""
        while True:
            text = await receive_text(self.websocket)
            broadcast(self.room, f"{self.prefix}Client says: {text}")
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
    if text is None:  # a binary message
        raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    if len(text) > LONGEST:
        raise WebSocketException(status.WS_1009_MESSAGE_TOO_BIG, "the text is too long")
    return text


async def converse(websocket: WebSocket, room: set[Member], prefix: str = "") -> None:
    """Serve one client, until its connection is closed."""
    await websocket.accept()
    member = Member(websocket, room, prefix)
    room.add(member)
    try:
        await member.talk()
    finally:
        room.remove(member)
        broadcast(room, f"{prefix}A client left the chat")
    # Last, because it may take a while, and the others do not have to wait for it.
    await member.close()


chat_room: set[Member] = set()
additional_room: set[Member] = set()


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/chat")
async def chat(websocket: WebSocket) -> None:
    await converse(websocket, chat_room)


@app.websocket("/ws/chat_additional")
async def chat_additional(websocket: WebSocket) -> None:
    await converse(websocket, additional_room, "(Additional) ")
