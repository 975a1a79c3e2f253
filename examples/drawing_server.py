"""Drawing board: state that everybody changes, and everybody sees the same.

A painter sends `{"type": "stroke", "points": [[x, y], …], "color": "#rrggbb", "width": w}`
and everybody at the board, the painter included, gets it back with its `id`; ids rise.
`{"type": "clear"}` goes to everybody as it is. A newcomer gets the strokes so far,
`{"type": "board", "strokes": […]}`, and then each new stroke once. A
`{"type": "cursor", "x": …, "y": …}` goes to the others. Anything else gets its sender
`{"type": "error", "message": …}`; a text over LONGEST closes its connection with 1009.

In the folder examples:

    uvicorn drawing_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or on a phone, and draw. A stroke is never
dropped: a full board refuses it, and a painter for whom BACKLOG messages wait is closed
with 1013 and finds the strokes on the board when it comes back. A painter who is behind
gets no cursors. Boards live in this process. A picture stays when everybody has left, until
a new board needs its place; while there are painters at all BOARDS boards, a client that
asks for another one is closed with 1013.
Notebook: notebooks/16_drawing_server.ipynb. Exercise: exercises/drawing_server.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

PAGE = Path(__file__).with_suffix(".html")
LONGEST = 64 * 1024  # characters of one message of a client, enough for POINTS
POINTS = 1000  # in one stroke
BOARD_SIZE = 1000 * 1000  # characters of strokes: a `board` has to be less than 1 MiB
BOARDS = 100  # whose strokes are kept
BACKLOG = 1000  # messages that may wait for one client; all queues hold the same texts
CURSORS = 50  # messages; while more wait for a client, it gets no cursors
PAUSE = 0.01  # seconds, before the server checks again whether a client has caught up
CLOSE_TIMEOUT = 2.0  # seconds for each of the two waits at the end of a conversation

app = FastAPI()

# A longer name is refused in the opening handshake.
BoardId = Annotated[str, StringConstraints(max_length=80)]


class Message(BaseModel):
    # Strict: neither "1" nor true is a number.
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
parser: TypeAdapter[Request] = TypeAdapter(Request)


# Member is the one of chat_server: only __init__ and read() differ.
class Member:
    """A painter at a board: two tasks, and a queue of messages for the client."""

    def __init__(self, websocket: WebSocket, board: "Board") -> None:
        self.websocket, self.board = websocket, board
        self.queue: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        self.reader = asyncio.create_task(self.read())
        self.writer = asyncio.create_task(self.write())

    async def read(self) -> None:
        """Do what the painter asks for, until it leaves or breaks a rule."""
        while True:
            text = await receive_text(self.websocket)
            try:
                self.board.take(self, parser.validate_json(text))
            except ValueError as error:
                broadcast([self], error_message(error))
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


class Board:
    """Strokes, and the painters who see them."""

    def __init__(self) -> None:
        self.members: set[Member] = set()
        self.strokes: list[str] = []  # as they were sent
        self.size = 0  # characters of `strokes`, each with the comma after it
        self.last_id = 0

    # Nothing here waits. So a newcomer gets each stroke once, on the board or after it.

    def join(self, member: Member) -> None:
        self.members.add(member)
        board = '{"type": "board", "strokes": [' + ",".join(self.strokes) + "]}"
        broadcast([member], board)

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
                # A cursor is soon out of date, so a painter who is behind does not get it.
                # In this way cursors never fill a queue: the rest of it is for strokes.
                others = self.members - {member}
                keeping_up = {each for each in others if each.queue.qsize() < CURSORS}
                broadcast(keeping_up, request.model_dump_json())

    def paint(self, stroke: Stroke) -> None:
        numbered = NumberedStroke(**stroke.model_dump(), id=self.last_id + 1)
        message = numbered.model_dump_json()
        size = self.size + len(message) + 1
        # If it dropped the oldest stroke, those who have seen it would go on seeing it.
        if size > BOARD_SIZE:
            raise ValueError("the board is full: clear it")
        self.strokes.append(message)
        self.size, self.last_id = size, numbered.id
        broadcast(self.members, message)


boards: dict[str, Board] = {}  # in the order in which they were last joined


def find_board(board_id: str) -> Board:
    """Return a board. A new one may take the place of the oldest that nobody is at."""
    board = boards.pop(board_id, None)
    if board is None and len(boards) >= BOARDS:
        free = next((name for name, old in boards.items() if not old.members), None)
        if free is None:
            raise WebSocketException(status.WS_1013_TRY_AGAIN_LATER, "no board is free")
        del boards[free]
    boards[board_id] = board or Board()
    return boards[board_id]


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text. A binary message counts as an empty one, which is no JSON."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str = message.get("text") or ""
    if len(text) > LONGEST:
        raise WebSocketException(status.WS_1009_MESSAGE_TOO_BIG, "the text is too long")
    return text


def error_message(error: ValueError) -> str:
    """Say what was wrong, in one line."""
    text = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        text = ": ".join(map(str, [*first["loc"], first["msg"]]))
    # It may repeat what the client has sent, and that may be long.
    return Error(message=text[:200]).model_dump_json()


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/drawing/{board_id}")
async def draw(websocket: WebSocket, board_id: BoardId) -> None:
    await websocket.accept()
    board = find_board(board_id)
    member = Member(websocket, board)
    board.join(member)
    try:
        await member.talk()
    finally:
        board.members.remove(member)
    # Last, because it may take a while, and the others do not have to wait for it.
    await member.close()
