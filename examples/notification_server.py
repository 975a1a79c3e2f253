"""Notifications: pushed over HTTP, heard in every tab of a user, kept while there is none.

`POST /users/{user_id}/notifications` with `{"message": m}` stores a notification and
answers 201 with `{"id": n, "message": m, "created_at": t}`; every tab of the user is sent
the same. `POST /notifications` does so for each user who is connected and answers with
the list. What no tab was there for is sent to the next that opens: once, in order. The
text `ping` is answered with `pong`, other texts are ignored; binary is closed with 1003.

    uvicorn notification_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or listen in a second terminal:

    python -m websockets ws://127.0.0.1:8000/ws/notifications/ana

The database is the file NOTIFICATIONS_DB, by default `notifications.db` in the current
folder; the last KEPT of each user stay in it. Delivered means sent to one tab: what is on
its way when a line breaks is lost (resume_server mends that). A tab that takes nothing for
SEND_TIMEOUT seconds is evicted with 1013. Anybody may be any user. One process only.
Notebook: notebooks/11_notification_server.ipynb. Exercise: exercises/notification_server.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import aiosqlite
from fastapi import (
    FastAPI,
    Request,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field

PAGE = Path(__file__).with_suffix(".html")
DATABASE = os.environ.get("NOTIFICATIONS_DB", "notifications.db")
KEPT = 100  # notifications of one user
SEND_TIMEOUT = 10.0  # seconds a tab may take to make room for a message
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame

SCHEMA = """
    CREATE TABLE IF NOT EXISTS notifications (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user_id TEXT NOT NULL,
        message TEXT NOT NULL,
        created_at TEXT NOT NULL,
        delivered INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX IF NOT EXISTS notifications_of_user ON notifications (user_id);
"""
INSERT = "INSERT INTO notifications (user_id, message, created_at) VALUES (?, ?, ?)"
FORGET = """
    DELETE FROM notifications WHERE user_id = ? AND id NOT IN
        (SELECT id FROM notifications WHERE user_id = ? ORDER BY id DESC LIMIT ?)
"""
LAST_DELIVERED = """
    SELECT coalesce(max(id), 0) FROM notifications WHERE user_id = ? AND delivered
"""
NEWER = """
    SELECT id, message, created_at FROM notifications
        WHERE user_id = ? AND id > ? ORDER BY id
"""
MARK = "UPDATE notifications SET delivered = 1 WHERE id = ? AND NOT delivered"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, aiosqlite.Connection]]:
    """Keep the database open as long as the server runs."""
    # Without an isolation level each statement is a transaction and commits by itself.
    async with aiosqlite.connect(DATABASE, isolation_level=None) as database:
        await database.executescript(SCHEMA)
        yield {"database": database}


app = FastAPI(lifespan=lifespan, max_body_size=16 * 1024)


class NewNotification(BaseModel):
    message: Annotated[str, Field(min_length=1, max_length=1000)]


class Notification(BaseModel):
    id: int
    message: str
    created_at: datetime


# For each user who is connected, the events that tell the tabs: there is something new.
tabs: defaultdict[str, set[asyncio.Event]] = defaultdict(set)


async def store(
    database: aiosqlite.Connection, user_id: str, new: NewNotification
) -> Notification:
    """Keep a notification, forget the oldest beyond KEPT, and wake the user's tabs."""
    now = datetime.now(UTC)
    row = (user_id, new.message, now.isoformat())
    inserted = await database.execute(INSERT, row)
    assert inserted.lastrowid  # as after every INSERT
    await database.execute(FORGET, (user_id, user_id, KEPT))
    for news in tabs.get(user_id, ()):
        news.set()
    return Notification(id=inserted.lastrowid, message=new.message, created_at=now)


async def deliver(websocket: WebSocket, user_id: str, news: asyncio.Event) -> None:
    """Send what was not delivered yet, oldest first, and then whatever is new."""
    database: aiosqlite.Connection = websocket.state.database
    [(last_id,)] = await database.execute_fetchall(LAST_DELIVERED, (user_id,))
    while True:
        # The database is the queue, and `last_id` the place of this tab in it. A slow
        # tab is further back, and neither the other tabs nor the sender wait for it.
        news.clear()
        rows = await database.execute_fetchall(NEWER, (user_id, last_id))
        for last_id, message, created_at in rows:
            notification = Notification(id=last_id, message=message, created_at=created_at)
            await send(websocket, notification.model_dump_json())
            # Marked when it is sent and not before, or a tab that closes loses it. The
            # database works in turn: a tab that opens from now on finds the mark.
            await database.execute(MARK, (last_id,))
        await news.wait()


async def answer(websocket: WebSocket) -> None:
    """Answer pings, until the client leaves."""
    while True:
        if await receive_text(websocket) == "ping":
            await send(websocket, "pong")


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; close with 1003 if the client sends anything else."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    if message.get("text") is None:
        raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    return message["text"]


async def send(websocket: WebSocket, text: str) -> None:
    """Send a text; a `TimeoutError` means that the client does not read."""
    async with asyncio.timeout(SEND_TIMEOUT):
        try:
            await websocket.send_text(text)
        except RuntimeError:
            # The connection was closed because no pong came.
            raise WebSocketDisconnect(status.WS_1006_ABNORMAL_CLOSURE) from None


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


@app.post("/users/{user_id}/notifications", status_code=status.HTTP_201_CREATED)
async def notify(request: Request, user_id: str, new: NewNotification) -> Notification:
    return await store(request.state.database, user_id, new)


@app.post("/notifications", status_code=status.HTTP_201_CREATED)
async def notify_all(request: Request, new: NewNotification) -> list[Notification]:
    return [await store(request.state.database, user_id, new) for user_id in list(tabs)]


@app.websocket("/ws/notifications/{user_id}")
async def notifications(websocket: WebSocket, user_id: str) -> None:
    await websocket.accept()
    news = asyncio.Event()
    tabs[user_id].add(news)
    try:
        async with asyncio.TaskGroup() as jobs:
            jobs.create_task(deliver(websocket, user_id, news))
            jobs.create_task(answer(websocket))
    except* WebSocketDisconnect:
        pass
    except* TimeoutError:
        await close(websocket, status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
    except* WebSocketException:
        await close(websocket, status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    finally:
        tabs[user_id].discard(news)
        if not tabs[user_id]:
            del tabs[user_id]
