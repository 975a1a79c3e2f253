"""Prices: one producer, many listeners, and each of them gets the newest value.

The server sends the current prices at once and again each INTERVAL, as JSON with the time
in UTC: `{"timestamp": "2026-01-31T12:00:00.000000Z", "prices": {"COCOA": 8.25, …}}`. One
task makes the prices for all clients, while there are any. What a client sends is ignored.

In the folder examples:

    uvicorn price_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs, or listen in a second terminal:

    python -m websockets ws://127.0.0.1:8000/ws/prices

Nothing is queued for a slow client: when it reads again, it gets what the network and one
waiting send had already taken, then the newest prices. If the producer fails, the log says
why, and all clients are closed with 1011. Two workers have prices of their own.
Notebook: notebooks/10_price_server.ipynb. Exercise: exercises/price_server.
"""

import asyncio
import logging
import random
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse
from pydantic import BaseModel

PAGE = Path(__file__).with_suffix(".html")
INTERVAL = 1.0  # seconds from one tick to the next
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame

app = FastAPI()
log = logging.getLogger("uvicorn.error")


class Tick(BaseModel):
    timestamp: str
    prices: dict[str, float]


class Feed:
    """The newest tick, and the one task that makes ticks while somebody listens."""

    def __init__(self, prices: dict[str, float]) -> None:
        self.prices = prices
        self.newest = ""  # the tick as JSON, written once for all listeners
        # An event for each listener, which tells it that there is a new tick.
        self.listeners: set[asyncio.Event] = set()
        self.producer: asyncio.Task[None] | None = None

    def tick(self) -> None:
        """Let every price take a random step, never to zero, and tell the listeners."""
        for symbol, price in self.prices.items():
            step = random.lognormvariate(0, 0.005)  # half a per cent up or down
            self.prices[symbol] = max(0.01, round(price * step, 2))
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        self.newest = Tick(timestamp=now, prices=self.prices).model_dump_json()
        for news in self.listeners:
            news.set()

    async def produce(self) -> None:
        """Make a tick each INTERVAL. Where prices come from a real source, it can fail."""
        try:
            while True:
                await asyncio.sleep(INTERVAL)
                self.tick()
        except Exception:
            log.exception("there are no more prices")

    def join(self, news: asyncio.Event) -> asyncio.Task[None]:
        """Count a listener, and return the producer, which the first one starts."""
        if self.producer is None or self.producer.done():
            # Nobody listened, so the prices are old. The first listener gets fresh ones.
            self.tick()
            self.producer = asyncio.create_task(self.produce())
        self.listeners.add(news)
        return self.producer

    def leave(self, news: asyncio.Event) -> None:
        """Forget a listener; the last one ends the producer."""
        self.listeners.remove(news)
        if not self.listeners and self.producer:
            self.producer.cancel()
            self.producer = None

    async def send_to(self, websocket: WebSocket, news: asyncio.Event) -> None:
        """Send the newest tick, whenever there is one that the client has not got."""
        while True:
            # Clear it first. A slow client may miss many ticks during its send: the event
            # is set by then, and the next round sends the newest.
            news.clear()
            await websocket.send_text(self.newest)
            await news.wait()


feed = Feed({"COCOA": 8.25, "COFFEE": 7.4, "COPPER": 10.9, "SILVER": 1540.0})


async def outlive(producer: asyncio.Task[None]) -> None:
    """Wait for the end of the producer, and end the conversation with it."""
    # If this wait is cancelled, the producer is not.
    await asyncio.wait([producer])
    raise WebSocketException(status.WS_1011_INTERNAL_ERROR, "there are no more prices")


async def drain(websocket: WebSocket) -> None:
    """Read and ignore what the client sends; raise WebSocketDisconnect when it has left."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close the connection; wait at most CLOSE_TIMEOUT for a client that does not read."""
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        await asyncio.wait_for(websocket.close(code, reason), CLOSE_TIMEOUT)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/prices")
async def prices(websocket: WebSocket) -> None:
    await websocket.accept()
    news = asyncio.Event()
    producer = feed.join(news)
    ended: Exception | None = None
    try:
        # One task reads, one sends, and one waits for the end of the producer. If any of
        # them fails, the group cancels the others.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed.send_to(websocket, news))
            tasks.create_task(outlive(producer))
            await drain(websocket)
    except* (WebSocketDisconnect, RuntimeError, WebSocketException) as errors:
        # If the client has gone, receiving raises the first of these, sending the first or
        # the second.
        ended = errors.exceptions[0]
    finally:
        feed.leave(news)
    # Last, because it may take a while, and the others do not have to wait for it.
    if isinstance(ended, WebSocketException):
        await close(websocket, ended.code, ended.reason)
