"""Prices: one producer, many listeners, and each of them gets the newest value.

The server sends the current prices at once and again each INTERVAL, as JSON with the time
in UTC: `{"timestamp": "2026-01-31T12:00:00.000000Z", "prices": {"COCOA": 8.25, …}}`. One
task makes the prices for all clients, while there are any. What a client sends is ignored.

    uvicorn price_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or listen in a second terminal:

    python -m websockets ws://127.0.0.1:8000/ws/prices

Nothing is queued for a slow client: when it reads again, it gets what the network and one
waiting send had already taken, then the newest prices. Two workers have prices of their
own. Notebook: notebooks/10_price_server.ipynb. Exercise: exercises/price_server.
"""

import asyncio
import random
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse
from pydantic import BaseModel

PAGE = Path(__file__).with_suffix(".html")
INTERVAL = 1.0  # seconds from one tick to the next

app = FastAPI()


class Tick(BaseModel):
    timestamp: datetime
    prices: dict[str, float]


class Feed:
    """The newest tick, and the one task that makes ticks while somebody listens."""

    def __init__(self, prices: dict[str, float]) -> None:
        self.prices = prices
        self.newest = ""  # the tick as JSON, written once for all listeners
        self.changed = asyncio.Event()  # set when `newest` has been replaced
        self.listeners = 0
        self.producer: asyncio.Task[None] | None = None

    def tick(self) -> None:
        """Let every price take a random step, never to zero, and wake the listeners."""
        for symbol, price in self.prices.items():
            step = random.lognormvariate(0, 0.005)  # half a per cent up or down
            self.prices[symbol] = max(0.01, round(price * step, 2))
        now = datetime.now(UTC)
        self.newest = Tick(timestamp=now, prices=self.prices).model_dump_json()
        # An event wakes everybody who waits for it now; the next tick needs a fresh one.
        self.changed.set()
        self.changed = asyncio.Event()

    async def produce(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            # A real source can fail: catch that here, for nobody waits for this task.
            self.tick()

    def join(self) -> None:
        if self.producer is None:
            # Nobody listened, so the prices are old. The first listener gets fresh ones.
            self.tick()
            self.producer = asyncio.create_task(self.produce())
        self.listeners += 1

    def leave(self) -> None:
        self.listeners -= 1
        if self.listeners == 0 and self.producer:
            self.producer.cancel()
            self.producer = None

    async def send_to(self, websocket: WebSocket) -> None:
        """Send the newest tick whenever the client has not got it yet."""
        # Sending to a client that has gone raises one of these. Its endpoint learns of
        # that from receive(), so there is nothing to do here.
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                # Look for the event first. A slow client may miss many ticks during its
                # send: the event is set by then, and the next round sends the newest.
                changed = self.changed
                await websocket.send_text(self.newest)
                await changed.wait()


feed = Feed({"COCOA": 8.25, "COFFEE": 7.4, "COPPER": 10.9, "SILVER": 1540.0})


async def drain(websocket: WebSocket) -> None:
    """Read and ignore what the client sends; raise WebSocketDisconnect when it has left."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/prices")
async def prices(websocket: WebSocket) -> None:
    await websocket.accept()
    feed.join()
    try:
        # The task that reads sees when the client leaves, and the group cancels the other.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed.send_to(websocket))
            await drain(websocket)
    except* WebSocketDisconnect:
        pass
    finally:
        feed.leave()
