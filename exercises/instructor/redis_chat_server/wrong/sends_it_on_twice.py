"""Sends a call to its own rescuers, publishes it, and hears it again from Redis.

fails: test_a_call_is_heard_on_both_masts
outcome: wrong message
advice: send it on twice
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from redis.asyncio import Redis

redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
bands: dict[str, set[WebSocket]] = {}


async def listen() -> None:
    pubsub = redis.pubsub()
    await pubsub.psubscribe("radio:*")
    async for message in pubsub.listen():
        if message["type"] == "pmessage":
            band = message["channel"].removeprefix("radio:")
            for rescuer in list(bands.get(band, [])):
                await rescuer.send_text(f"{band}: {message['data']}")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    listener = asyncio.create_task(listen())
    yield
    listener.cancel()


app = FastAPI(lifespan=lifespan)


@app.websocket("/bands/{band}")
async def radio(websocket: WebSocket, band: str) -> None:
    bands.setdefault(band, set()).add(websocket)
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            for rescuer in list(bands[band]):
                await rescuer.send_text(f"{band}: {text}")
            await redis.publish(f"radio:{band}", text)
    except WebSocketDisconnect:
        bands[band].discard(websocket)
