"""Named chat: a person is a name, in one tab or in several.

A client says who it is in the path. When it joins, everybody hears `Client #{client_id}
joined the chat`; a text message `T` reaches the others as `Client #{client_id}: T` and its
sender as `You: T`; when it leaves, the rest hear `Client #{client_id} left the chat`. All
tabs of one name are one person: each hears everything, `You: T` whichever of them sent it.
Joining is told for the first, leaving for the last. A binary message is closed with 1003.

    uvicorn named_chat_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in three tabs, two of one name, or use a terminal:

    python -m websockets ws://127.0.0.1:8000/ws/ana

Names are taken on trust. A tab that stops reading is evicted with 1013 once BACKLOG
characters wait for it. Notebook: notebooks/04_named_chat_server.ipynb.
Exercise: exercises/named_chat_server.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse

PAGE = Path(__file__).with_suffix(".html")
BACKLOG = 4 * 1024 * 1024  # characters that may wait for one client
PACE = 16 * 1024 * 1024  # characters a second that one client may say
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame

app = FastAPI()


# Member and broadcast() are those of chat_server.
class Member:
    """A tab of somebody, and the messages that still wait to be sent to it."""

    def __init__(self, websocket: WebSocket, name: str) -> None:
        self.websocket = websocket
        self.name = name
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


# Nothing below waits while it looks at the members, so nobody comes or goes meanwhile.
members: list[Member] = []


def is_here(name: str) -> bool:
    return any(member.name == name for member in members)


def join(member: Member) -> None:
    first = not is_here(member.name)
    members.append(member)
    if first:
        broadcast(members, f"Client #{member.name} joined the chat")


def say(sender: Member, text: str) -> None:
    tabs = [member for member in members if member.name == sender.name]
    others = [member for member in members if member.name != sender.name]
    broadcast(tabs, f"You: {text}")
    broadcast(others, f"Client #{sender.name}: {text}")


def leave(member: Member) -> None:
    members.remove(member)
    if member.writer:
        member.writer.cancel()
    if not is_here(member.name):
        broadcast(members, f"Client #{member.name} left the chat")


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


@app.websocket("/ws/{client_id}")
async def chat(websocket: WebSocket, client_id: str) -> None:
    await websocket.accept()
    member, end = Member(websocket, client_id), None
    join(member)
    try:
        async with member.stay:
            while True:
                text = await receive_text(websocket)
                say(member, text)
                # A flood that is read faster than others can take it would evict them.
                await asyncio.sleep(len(text) / PACE)
    except WebSocketDisconnect:
        pass
    except WebSocketException as refusal:
        end = refusal
    except TimeoutError:
        end = WebSocketException(status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
    finally:
        leave(member)
    # The others know by now: to reach this client may take a while.
    if end:
        await close(websocket, end.code, end.reason)
