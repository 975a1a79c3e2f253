"""A broadcast that begins each send without a task: faster, and wrong behind a middleware.

Sending rarely has to wait, because the operating system takes the message at once. So the
coroutine of each send is run by hand up to its first real wait. Only what is left goes
to a task, as eager tasks of Python 3.12 do. The price: a send may begin in the task of the
speaker and end in another. A middleware that limits each send in time then cancels the
speaker, and one that sets a context variable and resets it raises. So no lesson uses this.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

BACKLOG = 4 * 1024 * 1024  # characters that may wait for one client
PACE = 16 * 1024 * 1024  # characters a second that one client may say

app = FastAPI()


class Member:
    """A client in the room, and the messages that still wait to be sent to it."""

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


room: list[Member] = []


def broadcast(message: str) -> None:
    """Send a message to all members, and wait for none of them."""
    event = {"type": "websocket.send", "text": message}  # what send_text() would send
    for member in room:
        if member.writer:
            member.keep(message)
            continue
        sending = member.websocket.send(event)
        try:
            future = sending.send(None)
        except StopIteration:
            pass  # The message is sent.
        except (WebSocketDisconnect, RuntimeError):
            pass  # The client has gone. Its endpoint learns of that from receive().
        else:
            member.writer = asyncio.create_task(member.write(sending, future))


@app.websocket("/ws/chat")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    member = Member(websocket)
    room.append(member)
    try:
        async with member.stay:
            while True:
                text = await websocket.receive_text()
                broadcast(f"Client says: {text}")
                await asyncio.sleep(len(text) / PACE)
    except (WebSocketDisconnect, TimeoutError):
        pass
    finally:
        room.remove(member)
        if member.writer:
            member.writer.cancel()
        broadcast("A client left the chat")
