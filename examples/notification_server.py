"""Notifications: pushed over HTTP, heard in every tab of a user, kept while there is none.

`POST /users/{user_id}/notifications` with `{"message": m}` stores a notification and
answers 201 with `{"id": n, "message": m, "created_at": t}`, the time as
`2026-01-31T12:00:00.000000Z`; every tab of the user is sent the same. `POST /notifications`
does so for each user who is connected, and answers with the list. What comes while no tab
is open is sent to the next that opens: once, in order. The text `ping` is answered with
`pong`, other texts are ignored; binary is closed with 1003, a text over LONGEST with 1009.

In the folder examples:

    uvicorn notification_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or listen in a second terminal:

    python -m websockets ws://127.0.0.1:8000/ws/notifications/ana

The database is the file NOTIFICATIONS_DB, by default `notifications.db` in the current
folder; the last KEPT of each user are in it. If another program locks it for BUSY_TIMEOUT,
a POST is answered with 503, and a tab that waits for it is closed with 1013; so is one that
takes nothing for SEND_TIMEOUT. Delivered means sent to one tab: what is on its way when a
line breaks is lost (resume_server mends that). Anybody may be any user. One process only.
Notebook: notebooks/11_notification_server.ipynb. Exercise: exercises/notification_server.
"""

import asyncio
import logging
import os
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
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
from pydantic import BaseModel, Field, PlainSerializer, StringConstraints

PAGE = Path(__file__).with_suffix(".html")
DATABASE = os.environ.get("NOTIFICATIONS_DB", "notifications.db")
LONGEST = 64 * 1024  # characters of one text
KEPT = 100  # notifications of one user
BUSY_TIMEOUT = 5.0  # seconds to wait for another program that has locked the database
PAUSE = 0.1  # seconds, before the server tries again
SEND_TIMEOUT = 10.0  # seconds a tab may take to make room for a message
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame

CREATE = """
    CREATE TABLE IF NOT EXISTS notifications (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user_id TEXT NOT NULL,
        message TEXT NOT NULL,
        created_at TEXT NOT NULL,
        delivered INTEGER NOT NULL DEFAULT 0,
        UNIQUE (user_id, id)  -- an index that finds those of one user
    )
"""
INSERT = """
    INSERT INTO notifications (user_id, message, created_at) VALUES (?, ?, ?) RETURNING id
"""
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

log = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, aiosqlite.Connection]]:
    """Keep the database open as long as the server runs."""
    # Without an isolation level each statement is a transaction and commits by itself.
    # Without a timeout SQLite does not wait for a lock: ask() does.
    async with aiosqlite.connect(DATABASE, timeout=0, isolation_level=None) as database:
        try:
            await ask(database, CREATE)
        except sqlite3.OperationalError as error:
            now = "is another program using it? Until that ends, nothing is stored."
            log.warning("%s: %s; %s", DATABASE, error, now)
        yield {"database": database}


app = FastAPI(lifespan=lifespan, max_body_size=16 * 1024)


UserId = Annotated[str, StringConstraints(max_length=64)]
# Pydantic leaves out microseconds that are zero; a client may expect them always.
Moment = Annotated[datetime, PlainSerializer(lambda m: f"{m:%Y-%m-%dT%H:%M:%S.%fZ}", str)]


class NewNotification(BaseModel):
    message: Annotated[str, Field(min_length=1, max_length=1000)]


class Notification(BaseModel):
    id: int
    message: str
    created_at: Moment


# For each user who is connected, the events that tell the tabs: there is something new.
tabs: defaultdict[str, set[asyncio.Event]] = defaultdict(set)


async def ask(
    database: aiosqlite.Connection, statement: str, *parameters: str | int
) -> Iterable[sqlite3.Row]:
    """Run a statement; wait up to BUSY_TIMEOUT if another program has locked the file."""
    end = monotonic() + BUSY_TIMEOUT
    while True:
        try:
            return await database.execute_fetchall(statement, parameters)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() > end:
                raise
        # The database does one thing at a time. If SQLite itself waited for the lock, all
        # other statements would wait behind this one.
        await asyncio.sleep(PAUSE)


async def store(
    database: aiosqlite.Connection, user_id: str, new: NewNotification
) -> Notification:
    """Keep a notification, wake the user's tabs, and forget the oldest beyond KEPT."""
    # This does nothing, unless the database was locked when the server started.
    await ask(database, CREATE)
    now = datetime.now(UTC)
    [(number,)] = await ask(database, INSERT, user_id, new.message, now.isoformat())
    for news in tabs.get(user_id, ()):
        news.set()
    # If the database has become busy, the next notification forgets one more.
    with suppress(sqlite3.OperationalError):
        await ask(database, FORGET, user_id, user_id, KEPT)
    return Notification(id=number, message=new.message, created_at=now)


async def deliver(websocket: WebSocket, user_id: str, news: asyncio.Event) -> None:
    """Send what was not delivered yet, oldest first, and then whatever is new."""
    database: aiosqlite.Connection = websocket.state.database
    await ask(database, CREATE)
    [(last_id,)] = await ask(database, LAST_DELIVERED, user_id)
    while True:
        # The database is the queue, and `last_id` the place of this tab in it. A slow
        # tab is further back, and neither the other tabs nor the sender wait for it.
        news.clear()
        rows = await ask(database, NEWER, user_id, last_id)
        for last_id, message, created_at in rows:
            notification = Notification(id=last_id, message=message, created_at=created_at)
            await send(websocket, notification.model_dump_json())
            # Marked when it is sent and not before, or a tab that closes loses it. The
            # database works in turn: a tab that opens from now on finds the mark.
            await ask(database, MARK, last_id)
        await news.wait()


async def answer(websocket: WebSocket) -> None:
    """Answer pings, until the client leaves."""
    while True:
        if await receive_text(websocket) == "ping":
            await send(websocket, "pong")
        # Messages that arrive together are read without a pause: others need a turn.
        await asyncio.sleep(0)


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


async def send(websocket: WebSocket, text: str) -> None:
    """Send a text, or raise the reason why the conversation ends."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            await websocket.send_text(text)
    except TimeoutError:
        code, reason = status.WS_1013_TRY_AGAIN_LATER, "reads too slowly"
        raise WebSocketException(code, reason) from None
    except RuntimeError:
        # The connection was closed because no pong came.
        raise WebSocketDisconnect(status.WS_1006_ABNORMAL_CLOSURE) from None


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close the connection; wait at most CLOSE_TIMEOUT for a client that does not read."""
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


@app.exception_handler(sqlite3.OperationalError)
async def try_later(request: Request, error: sqlite3.OperationalError) -> JSONResponse:
    reason = f"not stored: {error}"
    later = {"Retry-After": "5"}  # seconds
    return JSONResponse({"detail": reason}, status.HTTP_503_SERVICE_UNAVAILABLE, later)


@app.post("/users/{user_id}/notifications", status_code=status.HTTP_201_CREATED)
async def notify(request: Request, user_id: UserId, new: NewNotification) -> Notification:
    # The request may be cancelled, by a time limit around the app for example. What has
    # begun is finished: else it may be stored, and nobody hears of it.
    return await asyncio.shield(store(request.state.database, user_id, new))


@app.post("/notifications", status_code=status.HTTP_201_CREATED)
async def notify_all(request: Request, new: NewNotification) -> list[Notification]:
    # If the database fails in the middle, those before have got it: to post it again tells
    # them twice.
    return [await notify(request, user_id, new) for user_id in list(tabs)]


@app.websocket("/ws/notifications/{user_id}")
async def notifications(websocket: WebSocket, user_id: UserId) -> None:
    await websocket.accept()
    news = asyncio.Event()
    tabs[user_id].add(news)
    ended: Exception | None = None
    try:
        # The task that reads sees when the client leaves, and the group cancels the other.
        # If the other fails, the group cancels the reading: neither goes on alone.
        async with asyncio.TaskGroup() as jobs:
            jobs.create_task(deliver(websocket, user_id, news))
            await answer(websocket)
    except* (WebSocketDisconnect, WebSocketException, sqlite3.OperationalError) as errors:
        ended = errors.exceptions[0]
    finally:
        tabs[user_id].discard(news)
        if not tabs[user_id]:
            del tabs[user_id]
    # Last, because it may take a while, and the others do not have to wait for it.
    if isinstance(ended, WebSocketException):
        await close(websocket, ended.code, ended.reason)
    elif isinstance(ended, sqlite3.OperationalError):
        log.warning("%s: %s", DATABASE, ended)
        await close(websocket, status.WS_1013_TRY_AGAIN_LATER, str(ended))
