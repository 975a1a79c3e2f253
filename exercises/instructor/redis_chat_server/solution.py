"""A radio net whose masts speak with one voice: one possible solution."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

QUEUE_SIZE = 100  # messages that may wait for one rescuer
PAUSE = 0.2  # seconds between two attempts to reach Redis

redis = Redis.from_url(
    os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
    decode_responses=True,
    # One more attempt is for a connection that Redis has closed; more would only take time.
    retry=Retry(NoBackoff(), 1),
    max_connections=10_000,
)

app = FastAPI()


class Band:
    """The rescuers that this mast has on a band, and its subscription for them all."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.channel = f"radio:{name}"
        self.queues: set[asyncio.Queue[str]] = set()
        self.users = 0  # rescuers, and those who are about to become one
        self.linked = False
        self.tried = asyncio.Event()  # set when the first attempt to subscribe is over
        self.listener = asyncio.create_task(self.listen())

    def tell(self, text: str) -> None:
        """Leave a text for the writers; a rescuer whose queue is full misses it."""
        for queue in self.queues:
            with suppress(asyncio.QueueFull):
                queue.put_nowait(text)

    async def listen(self) -> None:
        """Be subscribed whenever Redis is there, as long as somebody is here."""
        # redis-py sends with `asyncio.wait_for`, in which Python 3.11 may lose a
        # cancellation: hence `users`, also below.
        while self.users:
            with suppress(RedisError):
                async with redis.pubsub() as pubsub:
                    await self.relay(pubsub)
            if self.linked:
                self.linked = False
                self.tell("(no link)")
            self.tried.set()
            await asyncio.sleep(PAUSE)

    async def relay(self, pubsub: PubSub) -> None:
        await pubsub.subscribe(self.channel)
        async for message in pubsub.listen():
            if not self.users:
                break
            if message["type"] == "message":
                self.tell(f"{self.name}: {message['data']}")
            elif not self.linked:
                # The confirmation. On the first time nobody is there to be told.
                self.linked = True
                self.tell("(link again)")
                self.tried.set()

    async def call(self, text: str) -> bool:
        """Publish a call; false if Redis did not take it."""
        # Without the subscription, only the other masts would hear it.
        if self.linked:
            with suppress(RedisError):
                await redis.publish(self.channel, text)
                return True
        return False


bands: dict[str, Band] = {}


@asynccontextmanager
async def enter(name: str) -> AsyncIterator[Band]:
    """Subscribe with the first rescuer, unsubscribe after the last."""
    band = bands.get(name) or bands.setdefault(name, Band(name))
    band.users += 1
    try:
        await band.tried.wait()
        yield band
    finally:
        band.users -= 1
        if band.users == 0:
            del bands[name]
            band.listener.cancel()


async def write(websocket: WebSocket, queue: asyncio.Queue[str]) -> None:
    # When the line is cut, the endpoint learns of it while receiving.
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await websocket.send_text(await queue.get())


@app.websocket("/bands/{name}")
async def radio(websocket: WebSocket, name: str) -> None:
    async with enter(name) as band:
        await websocket.accept()
        queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_SIZE)
        band.queues.add(queue)
        writer = asyncio.create_task(write(websocket, queue))
        try:
            if not band.linked:
                queue.put_nowait("(no link)")
            while True:
                text = await websocket.receive_text()
                if not await band.call(text):
                    queue.put_nowait("(not sent)")
        except WebSocketDisconnect:
            pass
        finally:
            band.queues.discard(queue)
            writer.cancel()
