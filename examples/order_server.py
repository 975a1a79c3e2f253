"""Orders: an HTTP request changes a row, and whoever it concerns hears of it at once.

`POST /orders/{order_id}/status` with `{"status": s}` writes the status to SQLite, commits,
and then sends `{"type": "order_update", "order_id": o, "status": s}` to every client in
the owner's room `user_{user_id}`. An unknown order is 404, an unknown status 422; nothing
is sent then, nor when the commit fails. What clients say is read and ignored.

    uvicorn order_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or listen in a second terminal:

    python -m websockets ws://127.0.0.1:8000/ws/user_1

The database is the file ORDERS_DB, by default `orders.db` in the current folder, and begins
with orders 1 and 2 of user 1 and order 3 of user 2. Anybody may change an order and join a
room; the rooms live in one process; a client for which BACKLOG characters wait is evicted
with 1013. Notebook: notebooks/12_order_server.ipynb. Exercise: exercises/order_server.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import aiosqlite
from fastapi import (
    FastAPI,
    HTTPException,
    Request,
    WebSocket,
    WebSocketDisconnect,
    status,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel

PAGE = Path(__file__).with_suffix(".html")
DATABASE = os.environ.get("ORDERS_DB", "orders.db")
BUSY_TIMEOUT = 5.0  # seconds to wait for another process that has locked the database
BACKLOG = 4 * 1024 * 1024  # characters that may wait for one client
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame

SCHEMA = """
    CREATE TABLE IF NOT EXISTS orders (
        id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, status TEXT NOT NULL
    );
    INSERT INTO orders
        SELECT * FROM (VALUES (1, 1, 'pending'), (2, 1, 'pending'), (3, 2, 'pending'))
        WHERE NOT EXISTS (SELECT * FROM orders);
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, aiosqlite.Connection]]:
    """Keep the database open as long as the server runs."""
    async with aiosqlite.connect(DATABASE, timeout=BUSY_TIMEOUT) as database:
        await database.executescript(SCHEMA)
        yield {"database": database}


app = FastAPI(lifespan=lifespan, max_body_size=1024)

Status = Literal["pending", "paid", "shipped", "delivered", "cancelled"]


class NewStatus(BaseModel):
    status: Status


class OrderStatus(BaseModel):
    order_id: int
    status: Status


class OrderUpdate(BaseModel):
    type: Literal["order_update"] = "order_update"
    order_id: int
    status: Status


# Member and broadcast() are those of chat_server.
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
rooms: dict[str, list[Member]] = {}  # those that are not empty
changing = asyncio.Lock()


def leave(room_id: str, member: Member) -> None:
    rooms[room_id].remove(member)
    if not rooms[room_id]:
        del rooms[room_id]
    if member.writer:
        member.writer.cancel()


async def change(
    database: aiosqlite.Connection, order_id: int, new: NewStatus
) -> int | None:
    """Commit a new status; return whose order it is, `None` if there is no such order."""
    # SQLite's integers have 64 bits: a longer number is the id of no order.
    if order_id.bit_length() > 63:
        return None
    update = "UPDATE orders SET status = ? WHERE id = ?"
    find = "SELECT user_id FROM orders WHERE id = ?"
    try:
        await database.execute(update, (new.status, order_id))
        owners = await database.execute_fetchall(find, (order_id,))
        await database.commit()
    except BaseException:
        # A change that is left half done would be committed with the next one.
        await database.rollback()
        raise
    return next((user_id for (user_id,) in owners), None)


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close the connection, without waiting for ever on a client that does not read."""
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        await asyncio.wait_for(websocket.close(code, reason), CLOSE_TIMEOUT)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.exception_handler(RequestValidationError)
async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
    # FastAPI's own answer repeats the input, which cannot be sent if it holds NaN.
    reasons = [reason["msg"] for reason in error.errors()]
    return JSONResponse({"detail": reasons}, status.HTTP_422_UNPROCESSABLE_CONTENT)


@app.post("/orders/{order_id}/status")
async def change_status(request: Request, order_id: int, new: NewStatus) -> OrderStatus:
    # The connection knows one transaction at a time: without the lock, two requests would
    # commit and roll back each other's changes. It is held until the clients are told, so
    # that they hear of two changes in the order in which the database saw them.
    async with changing:
        user_id = await change(request.state.database, order_id, new)
        if user_id is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "no such order")
        # Only now: told before the commit, clients may hear of what never happened.
        update = OrderUpdate(order_id=order_id, status=new.status)
        listeners = rooms.get(f"user_{user_id}", [])
        broadcast(listeners, update.model_dump_json())
    return OrderStatus(order_id=order_id, status=new.status)


@app.websocket("/ws/{room_id}")
async def listen(websocket: WebSocket, room_id: str) -> None:
    await websocket.accept()
    member = Member(websocket)
    rooms.setdefault(room_id, []).append(member)
    try:
        async with member.stay:
            # Nothing that a client says matters here, except that it leaves: only a
            # server that reads hears that.
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass
    except TimeoutError:
        pass
    finally:
        leave(room_id, member)
    if member.stay.expired():
        await close(websocket, status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
