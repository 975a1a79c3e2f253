"""Named chat: a person is a name, in one tab or in several.

A client says who it is in the path, and nobody checks it. When it joins, everybody hears
`Client #{client_id} joined the chat`. A text message `T` reaches the others as
`Client #{client_id}: T`, and its sender as `You: T`. When it leaves, the rest hear
`Client #{client_id} left the chat`. All tabs of one name are one person: each tab hears
everything, joining is told for the first tab and leaving for the last. A binary message
closes its tab with 1003, a text over LONGEST with 1009.

In the folder examples:

    uvicorn named_chat_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in three tabs, two of one name, or use a terminal:

    python -m websockets ws://127.0.0.1:8000/ws/ana

A tab that reads slowly delays nobody: each has a queue, as in chat_server. When BACKLOG
messages wait for a tab, the server closes its connection with 1013.
Notebook: notebooks/04_named_chat_server.ipynb. Exercise: exercises/named_chat_server.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse
from pydantic import StringConstraints

PAGE = Path(__file__).with_suffix(".html")
LONGEST = 64 * 1024  # characters of one text
BACKLOG = 1000  # messages that may wait for one client; all queues hold the same texts
PAUSE = 0.01  # seconds, before the server checks again whether a client has caught up
CLOSE_TIMEOUT = 2.0  # seconds for each of the two waits at the end of a conversation

app = FastAPI()

# A longer name is refused in the opening handshake, with HTTP 403.
ClientId = Annotated[str, StringConstraints(max_length=64)]


# Member is the one of chat_server: only __init__ and read() differ.
class Member:
    """A tab of a person: two tasks, and a queue of messages for the tab."""

    def __init__(self, websocket: WebSocket, name: str) -> None:
        self.websocket, self.name = websocket, name
        self.queue: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        self.reader = asyncio.create_task(self.read())
        self.writer = asyncio.create_task(self.write())

    async def read(self) -> None:
        """Tell everybody what the client says, until it leaves or breaks a rule."""
        while True:
            say(self, await receive_text(self.websocket))
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


# All open tabs. The functions below never wait, so no tab comes or goes while they run.
members: set[Member] = set()


def is_here(name: str) -> bool:
    return any(member.name == name for member in members)


def join(member: Member) -> None:
    first = not is_here(member.name)
    members.add(member)
    if first:
        broadcast(members, f"Client #{member.name} joined the chat")


def say(sender: Member, text: str) -> None:
    tabs = {member for member in members if member.name == sender.name}
    broadcast(tabs, f"You: {text}")
    broadcast(members - tabs, f"Client #{sender.name}: {text}")


def leave(member: Member) -> None:
    members.remove(member)
    if not is_here(member.name):
        broadcast(members, f"Client #{member.name} left the chat")


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/{client_id}")
async def chat(websocket: WebSocket, client_id: ClientId) -> None:
    await websocket.accept()
    member = Member(websocket, client_id)
    join(member)
    try:
        await member.talk()
    finally:
        leave(member)
    # Last, because it may take a while, and the others do not have to wait for it.
    await member.close()
