"""Writes the names into the text of the statement.

fails: test_pizzas_go_their_way_in_the_database
outcome: server crashed
advice: the name O'Hara breaks it
"""

import os
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from typing import Annotated, Literal

from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect, status
from pydantic import BaseModel, Field

DATABASE = "pizzas.db"
LOCK_TIMEOUT = float(os.environ.get("LOCK_TIMEOUT", "5.0"))  # seconds

SCHEMA = """
    CREATE TABLE IF NOT EXISTS pizzas (
        number INTEGER PRIMARY KEY,
        customer TEXT NOT NULL,
        topping TEXT NOT NULL,
        state TEXT NOT NULL
    );
"""
FIND = "SELECT customer FROM pizzas WHERE number = ?"
STEP = "UPDATE pizzas SET state = ? WHERE number = ? AND state = ?"
BEFORE = {"oven": "ordered", "road": "oven", "eaten": "road"}


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    """Commit at the end, or roll back."""
    with closing(sqlite3.connect(DATABASE, LOCK_TIMEOUT)) as database, database:
        yield database


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with transaction() as database:
        database.executescript(SCHEMA)
    yield


app = FastAPI(lifespan=lifespan)

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


tabs: defaultdict[str, set[WebSocket]] = defaultdict(set)


@app.post("/pizzas", status_code=status.HTTP_201_CREATED)
async def order(new: Order) -> Pizza:
    with transaction() as database:
        values = f"'{new.customer}', '{new.topping}', 'ordered'"
        insert = f"INSERT INTO pizzas (customer, topping, state) VALUES ({values})"
        number = database.execute(insert).lastrowid
    assert number  # as after every INSERT
    return Pizza(**new.model_dump(), number=number, state="ordered")


@app.post("/pizzas/{number}/state")
async def change(number: int, new: NewState) -> Change:
    with transaction() as database:
        found = number < 2**63 and database.execute(FIND, (number,)).fetchone()
        if not found:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "no such pizza")
        step = (new.state, number, BEFORE.get(new.state))
        if database.execute(STEP, step).rowcount == 0:
            raise HTTPException(status.HTTP_409_CONFLICT, "not the next state")
    changed = Change(number=number, state=new.state)
    for tab in list(tabs[found[0]]):
        with suppress(WebSocketDisconnect, RuntimeError):
            await tab.send_text(changed.model_dump_json())
    return changed


@app.websocket("/customers/{customer}")
async def listen(websocket: WebSocket, customer: str) -> None:
    await websocket.accept()
    tabs[customer].add(websocket)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("text") == "ping":
                await websocket.send_text("pong")
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        tabs[customer].discard(websocket)
