"""Chat: whatever one client says, everybody in the room hears.

A text message `T` is broadcast to all clients of the room, its sender included, as
`Client says: T`; when a client leaves, the rest hear `A client left the chat`. A binary
message closes the connection of its sender with 1003, a text over LONGEST with 1009.

In the folder examples:

    uvicorn chat_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or use two terminals:

    python -m websockets ws://127.0.0.1:8000/ws/chat

Each client has a queue, and a task that sends what is in it, so a client that reads slowly
does not delay the others. When BACKLOG messages wait for a client, the server closes its
connection with 1013 (try again later), a code that it gets if it reads again within
CLOSE_TIMEOUT. The option above ends the server even if a client does not read. The rooms
live in this process: with two workers there would be two of each.
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
BACKLOG = 1000  # messages that may wait for one client; all clients share their memory
PAUSE = 0.01  # seconds, before the server looks again whether a client has caught up
CLOSE_TIMEOUT = 2.0  # seconds that the end of a conversation may take

app = FastAPI()


class Member:
    """A client in a room: two tasks, and a queue of messages for the client."""

    def __init__(self, websocket: WebSocket, room: set["Member"], prefix: str) -> None:
        self.websocket, self.room, self.prefix = websocket, room, prefix
        self.queue: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        self.reader = asyncio.create_task(self.read())
        self.writer = asyncio.create_task(self.write())

    async def read(self) -> None:
        """Broadcast what the client says, until it leaves or breaks a rule."""
        while True:
            text = await receive_text(self.websocket)
            broadcast(self.room, f"{self.prefix}Client says: {text}")
            await self.catch_up()

    async def catch_up(self) -> None:
        """Wait while more than half of the queue is in use."""
        # A speaker hears its own words too. If it falls behind with them, so may others:
        # while this waits, nothing more is read from the speaker, and they can catch up.
        while self.queue.qsize() > BACKLOG // 2 and not self.writer.done():
            await asyncio.sleep(PAUSE)

    async def write(self) -> None:
        """Send what is in the queue, as fast as the client reads."""
        # Sending to a client that has gone raises one of these.
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await self.websocket.send_text(await self.queue.get())

    async def talk(self) -> None:
        """Return when the conversation is over, and end both tasks."""
        try:
            tasks = [self.reader, self.writer]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # If nothing can be sent any more, what the client said before is still read.
            await asyncio.wait([self.reader], timeout=CLOSE_TIMEOUT)
        finally:
            self.reader.cancel()
            self.writer.cancel()

    async def close(self) -> None:
        """Close the connection with the code that says why, if the client has not."""
        with suppress(asyncio.CancelledError):
            await self.writer  # Raises what nobody expected, and uvicorn logs it.
        try:
            await self.reader
        except WebSocketDisconnect:
            return  # The client has gone: there is nobody to tell.
        except WebSocketException as refusal:
            code, reason = refusal.code, refusal.reason
        except asyncio.CancelledError:
            code, reason = status.WS_1013_TRY_AGAIN_LATER, "reads too slowly"
        # A client that does not read makes this wait.
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            await asyncio.wait_for(self.websocket.close(code, reason), CLOSE_TIMEOUT)


def broadcast(room: Iterable[Member], message: str) -> None:
    """Put a message into every member's queue. This never waits for anybody."""
    for member in room:
        try:
            member.queue.put_nowait(message)
        except asyncio.QueueFull:
            member.reader.cancel()  # It reads too slowly: close() says so, with 1013.


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


async def converse(websocket: WebSocket, room: set[Member], prefix: str = "") -> None:
    await websocket.accept()
    member = Member(websocket, room, prefix)
    room.add(member)
    try:
        await member.talk()
    finally:
        room.remove(member)
        broadcast(room, f"{prefix}A client left the chat")
    # Last, because it may take a while to reach this client.
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
