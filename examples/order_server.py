"""Orders: an HTTP request changes a row, and those whom it concerns hear of it at once.

`POST /orders/{order_id}/status` with `{"status": s}` writes the status to SQLite, commits,
and then sends `{"type": "order_update", "order_id": o, "status": s}` to every client in
the owner's room `user_{user_id}`. An unknown order is 404, an unknown status 422, and a
database that another program has locked for BUSY_TIMEOUT is 503: then nothing is changed,
and nothing is sent. What clients say is ignored. A name of a room has at most 80
characters. In the folder examples:

    uvicorn order_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or listen in a second terminal:

    python -m websockets ws://127.0.0.1:8000/ws/user_1

The database is the file ORDERS_DB, by default `orders.db` in the current folder, and begins
with orders 1 and 2 of user 1 and order 3 of user 2. Anybody may change an order and join a
room; the rooms live in one process; a client for which BACKLOG messages wait is closed
with 1013. Notebook: notebooks/12_order_server.ipynb. Exercise: exercises/order_server.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal

import aiosqlite
from fastapi import (
    FastAPI,
    HTTPException,
    Request,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, StringConstraints

PAGE = Path(__file__).with_suffix(".html")
DATABASE = os.environ.get("ORDERS_DB", "orders.db")
BUSY_TIMEOUT = 5.0  # seconds to wait for another program that has locked the database
BACKLOG = 1000  # messages that may wait for one client; all queues hold the same texts
CLOSE_TIMEOUT = 2.0  # seconds for each of the two waits at the end of a conversation

RoomId = Annotated[str, StringConstraints(max_length=80)]
Status = Literal["pending", "paid", "shipped", "delivered", "cancelled"]

SCHEMA = """
    BEGIN IMMEDIATE;
    CREATE TABLE IF NOT EXISTS orders (
        id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, status TEXT NOT NULL
    );
    INSERT OR IGNORE INTO orders
        VALUES (1, 1, 'pending'), (2, 1, 'pending'), (3, 2, 'pending');
"""
TABLE = "SELECT * FROM sqlite_schema WHERE name = 'orders'"
UPDATE = "UPDATE orders SET status = ? WHERE id = ? RETURNING user_id"

log = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, aiosqlite.Connection]]:
    """Keep the database open as long as the server runs."""
    async with aiosqlite.connect(DATABASE, timeout=BUSY_TIMEOUT) as database:
        try:
            async with transaction(database):
                pass  # It makes the table, if there is none.
        except sqlite3.OperationalError as error:
            now = "is another program using it? Until that ends, changes are refused."
            log.warning("%s: %s; %s", DATABASE, error, now)
        yield {"database": database}
        async with changing:
            pass  # A change that has begun is finished before the database is closed.


@asynccontextmanager
async def transaction(database: aiosqlite.Connection) -> AsyncIterator[None]:
    """Commit at the end, or leave nothing behind."""
    try:
        # That is so when the server starts; or later, if the database was locked then.
        if not await database.execute_fetchall(TABLE):
            await database.executescript(SCHEMA)
        yield
        await database.commit()
    except BaseException:
        # A change that is left half done would be committed with the next one.
        await database.rollback()
        raise


# A larger body is refused before it is read.
app = FastAPI(lifespan=lifespan, max_body_size=1024)


class NewStatus(BaseModel):
    status: Status


class OrderStatus(BaseModel):
    order_id: int
    status: Status


class OrderUpdate(BaseModel):
    type: Literal["order_update"] = "order_update"
    order_id: int
    status: Status


# Member is the one of chat_server: only __init__ and read() differ. Nobody here speaks to
# others, so there is no catch_up().
class Member:
    """A client in a room: two tasks, and a queue of messages for the client."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.queue: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        self.reader = asyncio.create_task(self.read())
        self.writer = asyncio.create_task(self.write())

    async def read(self) -> None:
        """Ignore what the client says, until it leaves."""
        # Only a server that reads learns that a client has left.
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            # Messages that arrive together are read without a pause: others need a turn.
            await asyncio.sleep(0)

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


# Nothing below waits while it looks at a room, so nobody comes or goes meanwhile.
rooms: dict[str, set[Member]] = {}  # those that are not empty
changing = asyncio.Lock()


async def change(database: aiosqlite.Connection, order_id: int, new: Status) -> OrderStatus:
    """Commit a new status, and then tell the clients of the owner."""
    # The connection knows one transaction at a time: without the lock, two requests would
    # commit and roll back each other's changes. It is held until the clients are told, so
    # that they hear of two changes in the order in which the database saw them.
    async with asyncio.timeout(BUSY_TIMEOUT):
        await changing.acquire()
    try:
        async with transaction(database):
            # As a text: SQLite takes no integer of more than 64 bits.
            owners = await database.execute_fetchall(UPDATE, (new, str(order_id)))
        if not owners:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "no such order")
        # Only now: told before the commit, clients may hear of what never happened.
        update = OrderUpdate(order_id=order_id, status=new)
        for (user_id,) in owners:
            broadcast(rooms.get(f"user_{user_id}", ()), update.model_dump_json())
    finally:
        changing.release()
    return OrderStatus(order_id=order_id, status=new)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.exception_handler(RequestValidationError)
async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
    # FastAPI's own answer repeats the input, which cannot be sent if it holds NaN.
    reasons = [reason["msg"] for reason in error.errors()]
    return JSONResponse({"detail": reasons}, status.HTTP_422_UNPROCESSABLE_CONTENT)


@app.exception_handler(sqlite3.OperationalError)
@app.exception_handler(TimeoutError)
async def try_later(request: Request, error: Exception) -> JSONResponse:
    reason = f"nothing was changed: {error or 'the database is too busy'}"
    later = {"Retry-After": "5"}  # seconds
    return JSONResponse({"detail": reason}, status.HTTP_503_SERVICE_UNAVAILABLE, later)


@app.post("/orders/{order_id}/status")
async def change_status(request: Request, order_id: int, new: NewStatus) -> OrderStatus:
    # The request may be cancelled, by a time limit around the app for example. A change
    # that has begun is finished: else it may be committed, and nobody hears of it.
    return await asyncio.shield(change(request.state.database, order_id, new.status))


@app.websocket("/ws/{room_id}")
async def listen(websocket: WebSocket, room_id: RoomId) -> None:
    await websocket.accept()
    member = Member(websocket)
    room = rooms.setdefault(room_id, set())
    room.add(member)
    try:
        await member.talk()
    finally:
        room.remove(member)
        if not room:
            del rooms[room_id]
    await member.close()
