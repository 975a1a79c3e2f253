"""A pizzeria that tells nobody what it has not written down: one possible solution."""

import asyncio
import os
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Literal

import aiosqlite
from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect, status
from pydantic import BaseModel, Field

DATABASE = "pizzas.db"
LOCK_TIMEOUT = float(os.environ.get("LOCK_TIMEOUT", "5.0"))  # seconds
QUEUE_SIZE = 100  # changes that may wait for one tab
LARGEST = 64 * 1024  # bytes of a body

SCHEMA = """
    CREATE TABLE IF NOT EXISTS pizzas (
        number INTEGER PRIMARY KEY,
        customer TEXT NOT NULL,
        topping TEXT NOT NULL,
        state TEXT NOT NULL
    );
"""
INSERT = "INSERT INTO pizzas (customer, topping, state) VALUES (?, ?, ?)"
FIND = "SELECT customer FROM pizzas WHERE number = ?"
# It looks and changes in one step: nobody comes between.
STEP = "UPDATE pizzas SET state = ? WHERE number = ? AND state = ?"
BEFORE = {"oven": "ordered", "road": "oven", "eaten": "road"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, aiosqlite.Connection]]:
    async with aiosqlite.connect(DATABASE, timeout=LOCK_TIMEOUT) as database:
        await database.executescript(SCHEMA)
        yield {"database": database}


# A larger body is refused before it is parsed: parsing it would hold up everybody.
app = FastAPI(lifespan=lifespan, max_body_size=LARGEST)

State = Literal["ordered", "oven", "road", "eaten"]
Text = Annotated[str, Field(min_length=1)]


class Order(BaseModel):
    customer: Text
    topping: Text


class Pizza(Order):
    number: int
    state: State


class NewState(BaseModel):
    state: State


class Change(BaseModel):
    number: int
    state: State


tabs: defaultdict[str, set[asyncio.Queue[str]]] = defaultdict(set)
writing = asyncio.Lock()


@asynccontextmanager
async def transaction(database: aiosqlite.Connection) -> AsyncIterator[None]:
    """Commit at the end, or leave nothing behind."""
    try:
        yield
        await database.commit()
    except BaseException as error:
        # What is left half done would be committed with the next change.
        await database.rollback()
        if isinstance(error, sqlite3.OperationalError):
            raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, "locked") from error
        raise


def tell(customer: str, change: Change) -> None:
    """Leave a message for the writers; a tab whose queue is full misses it."""
    for queue in tabs.get(customer, ()):
        with suppress(asyncio.QueueFull):
            queue.put_nowait(change.model_dump_json())


async def write(websocket: WebSocket, queue: asyncio.Queue[str]) -> None:
    # When the line is cut, the endpoint learns of it while receiving.
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await websocket.send_text(await queue.get())


@app.post("/pizzas", status_code=status.HTTP_201_CREATED)
async def order(request: Request, new: Order) -> Pizza:
    database: aiosqlite.Connection = request.state.database
    async with writing, transaction(database):
        row = (new.customer, new.topping, "ordered")
        inserted = await database.execute(INSERT, row)
    assert inserted.lastrowid  # as after every INSERT
    return Pizza(**new.model_dump(), number=inserted.lastrowid, state="ordered")


@app.post("/pizzas/{number}/state")
async def change(request: Request, number: int, new: NewState) -> Change:
    database: aiosqlite.Connection = request.state.database
    # One transaction at a time on one connection; and the news keep the order of the
    # commits, because the lock is held until the customer is told.
    async with writing:
        async with transaction(database):
            # SQLite's integers have 64 bits: a longer number is the one of no pizza.
            known = number.bit_length() < 64
            found = list(await database.execute_fetchall(FIND, (number,))) if known else []
            if not found:
                raise HTTPException(status.HTTP_404_NOT_FOUND, "no such pizza")
            step = (new.state, number, BEFORE.get(new.state))
            if (await database.execute(STEP, step)).rowcount == 0:
                raise HTTPException(status.HTTP_409_CONFLICT, "not the next state")
        changed = Change(number=number, state=new.state)
        tell(found[0][0], changed)
    return changed


@app.websocket("/customers/{customer}")
async def listen(websocket: WebSocket, customer: str) -> None:
    await websocket.accept()
    queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_SIZE)
    tabs[customer].add(queue)
    writer = asyncio.create_task(write(websocket, queue))
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("text") == "ping":
                queue.put_nowait("pong")
            # Messages that arrive together are read without a pause; the writer needs one.
            await asyncio.sleep(0)
    except asyncio.QueueFull:
        await websocket.close(status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
    finally:
        writer.cancel()
        tabs[customer].discard(queue)
        if not tabs[customer]:
            del tabs[customer]
