"""Chat: whatever one client says, everybody in the room hears.

A text message `T` is broadcast to all clients of the room, its sender included, as
`Client says: T`; when a client leaves, the rest hear `A client left the chat`. A binary
message closes the connection of its sender with code 1003.

    uvicorn chat_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or use two terminals:

    python -m websockets ws://127.0.0.1:8000/ws/chat

A client that stops reading delays nobody: once BACKLOG characters wait for it, it is
evicted with code 1013 (try again later). uvicorn's option ends the server even while such
a client is connected. The rooms live in this process: two workers have two of each.
Notebook: notebooks/03_chat_server.ipynb. Exercise: exercises/chat_server.
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


# On a first reading begin below, at `Room`: the notebook takes all this apart.
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


# Nothing below waits while it looks at a room, so nobody comes or goes meanwhile.
Room = list[Member]
chat_room, additional_room = Room(), Room()


def leave(room: Room, member: Member) -> None:
    room.remove(member)
    if member.writer:
        member.writer.cancel()


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


async def converse(websocket: WebSocket, room: Room, prefix: str = "") -> None:
    await websocket.accept()
    member, end = Member(websocket), None
    room.append(member)
    try:
        async with member.stay:
            while True:
                text = await receive_text(websocket)
                broadcast(room, f"{prefix}Client says: {text}")
                # A flood that is read faster than others can take it would evict them.
                await asyncio.sleep(len(text) / PACE)
    except WebSocketDisconnect:
        pass
    except WebSocketException as refusal:
        end = refusal
    except TimeoutError:
        end = WebSocketException(status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
    finally:
        leave(room, member)
        broadcast(room, f"{prefix}A client left the chat")
    # The others know by now: to reach this client may take a while.
    if end:
        await close(websocket, end.code, end.reason)


@app.websocket("/ws/chat")
async def chat(websocket: WebSocket) -> None:
    await converse(websocket, chat_room)


@app.websocket("/ws/chat_additional")
async def chat_additional(websocket: WebSocket) -> None:
    await converse(websocket, additional_room, "(Additional) ")
