"""Drawing board: state that everybody changes, and everybody sees the same.

A painter sends `{"type": "stroke", "points": [[x, y], …], "color": "#rrggbb", "width": w}`
and everybody at the board, the painter included, gets it back with its `id`; ids rise.
`{"type": "clear"}` goes to everybody as it is. Whoever joins first gets the strokes so
far, `{"type": "board", "strokes": […]}`, and from then on each stroke once. A
`{"type": "cursor", "x": …, "y": …}` goes to the others. For anything else its sender
alone gets `{"type": "error", "message": …}`.

    uvicorn drawing_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or on a phone, and draw.

Draw what the server sends, in its order, and all pictures are the same. A stroke is never
dropped: a full board refuses it with an error, and a painter who is too far behind is
evicted with code 1013 and finds the strokes on the board when it comes back. Of cursors,
who is behind gets the newest. Boards live in this process: a picture stays when everybody
has left, until a new board needs its place; with no place left, 1013.
Notebook: notebooks/16_drawing_server.ipynb. Exercise: exercises/drawing_server.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

PAGE = Path(__file__).with_suffix(".html")
BACKLOG = 4 * 1024 * 1024  # characters that may wait for one client
BOARD_SIZE = 1024 * 1024  # characters of strokes on one board, far less than BACKLOG
BOARDS = 100
POINTS = 1000  # in one stroke
MESSAGE_SIZE = 64 * 1024  # characters, enough for so many points
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame

app = FastAPI()


class Message(BaseModel):
    # A number is a number: no "1" and no true.
    model_config = ConfigDict(strict=True)


class Stroke(Message):
    type: Literal["stroke"]
    points: Annotated[
        list[tuple[FiniteFloat, FiniteFloat]], Field(min_length=1, max_length=POINTS)
    ]
    color: Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]
    width: Annotated[FiniteFloat, Field(gt=0, le=100)]


class NumberedStroke(Stroke):
    id: int


class Cursor(Message):
    type: Literal["cursor"]
    x: FiniteFloat
    y: FiniteFloat


class Clear(Message):
    type: Literal["clear"]


class Error(Message):
    type: Literal["error"] = "error"
    message: str


Request = Annotated[Stroke | Cursor | Clear, Field(discriminator="type")]
requests: TypeAdapter[Request] = TypeAdapter(Request)


# Member and broadcast() are those of chat_server.
class Member:
    """A painter at a board, and the messages that still wait to be sent to it."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.waiting: deque[str] = deque()
        self.behind = 0  # characters in `waiting`
        self.cursors: dict[Member, str] = {}  # the newest of each other painter
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

    def point(self, painter: "Member", cursor: str) -> None:
        """Send a cursor; of those that have to wait, the newest of each painter is kept."""
        if self.writer:
            self.cursors[painter] = cursor
        else:
            broadcast([self], cursor)

    async def write(
        self, sending: Coroutine[Any, Any, None], future: asyncio.Future[None] | None
    ) -> None:
        """Finish a send that waits for `future`, and then send what has been kept."""
        with suppress(WebSocketDisconnect, RuntimeError):
            if future:  # `None` is a turn of the event loop, which it has had by now
                await asyncio.wait([future])
            await asyncio.create_task(sending)
            while self.waiting or self.cursors:
                if self.waiting:
                    message = self.waiting.popleft()
                    self.behind -= len(message)
                else:
                    message = self.cursors.pop(next(iter(self.cursors)))
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


class Board:
    """Strokes, and the painters who see them."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.strokes: list[str] = []  # as they were sent
        self.size = 0  # characters in `strokes`
        self.last_id = 0

    # Nothing here awaits. So whoever joins gets each stroke once, on the board or after it.

    def join(self, member: Member) -> None:
        self.members.append(member)
        board = '{"type": "board", "strokes": [' + ",".join(self.strokes) + "]}"
        broadcast([member], board)

    def leave(self, member: Member) -> None:
        self.members.remove(member)
        for other in self.members:
            other.cursors.pop(member, None)
        if member.writer:
            member.writer.cancel()

    def take(self, member: Member, request: Request) -> None:
        """Do what a painter asks for; raise ValueError if the board is full."""
        match request:
            case Stroke():
                self.paint(request)
            case Clear():
                self.strokes.clear()
                self.size = 0
                broadcast(self.members, request.model_dump_json())
            case Cursor():
                cursor = request.model_dump_json()
                for other in self.members:
                    if other is not member:
                        other.point(member, cursor)

    def paint(self, stroke: Stroke) -> None:
        numbered = NumberedStroke(**stroke.model_dump(), id=self.last_id + 1)
        message = numbered.model_dump_json()
        # To drop the oldest would leave it in the pictures of those who have seen it.
        if self.size + len(message) > BOARD_SIZE:
            raise ValueError("the board is full: clear it")
        self.last_id = numbered.id
        self.strokes.append(message)
        self.size += len(message)
        broadcast(self.members, message)


boards: dict[str, Board] = {}  # in the order in which they were last joined


def find_board(board_id: str) -> Board:
    """Return a board; a new one may take the place of one that nobody is at."""
    board = boards.pop(board_id, None)
    if board is None and len(boards) >= BOARDS:
        free = next((name for name, old in boards.items() if not old.members), None)
        if free is None:
            raise WebSocketException(status.WS_1013_TRY_AGAIN_LATER, "no board is free")
        del boards[free]
    boards[board_id] = board or Board()
    return boards[board_id]


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; raise ValueError if it is none, or too long."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    if message.get("text") is None:
        raise ValueError("text messages only")
    # To validate 16 MiB of points takes seconds, in which nobody else is served.
    if len(message["text"]) > MESSAGE_SIZE:
        raise ValueError(f"at most {MESSAGE_SIZE} characters")
    return message["text"]


def error_message(error: ValueError) -> str:
    """Say what was wrong, in one line."""
    text = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        text = ": ".join(map(str, [*first["loc"], first["msg"]]))
    # The client's own words may stand in it, and may be many.
    return Error(message=text[:200]).model_dump_json()


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close the connection, without waiting for ever on a client that does not read."""
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        await asyncio.wait_for(websocket.close(code, reason), CLOSE_TIMEOUT)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/drawing/{board_id}")
async def draw(websocket: WebSocket, board_id: str) -> None:
    await websocket.accept()
    board = find_board(board_id)
    member = Member(websocket)
    board.join(member)
    try:
        async with member.stay:
            while True:
                try:
                    text = await receive_text(websocket)
                    board.take(member, requests.validate_json(text))
                except ValueError as error:
                    broadcast([member], error_message(error))
                # A flood of messages is read without a pause; the writers need one.
                await asyncio.sleep(0)
    except (WebSocketDisconnect, TimeoutError):
        pass
    finally:
        board.leave(member)
    if member.stay.expired():
        await close(websocket, status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
