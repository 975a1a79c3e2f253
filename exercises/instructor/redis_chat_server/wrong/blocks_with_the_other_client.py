"""Listens with the client of Redis that blocks, in a handler that must not.

fails: test_a_call_is_heard_on_both_masts
outcome: event loop blocked
advice: take the one of redis.asyncio
"""

import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from redis import Redis

redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)

app = FastAPI()


@app.websocket("/bands/{band}")
async def radio(websocket: WebSocket, band: str) -> None:
    pubsub = redis.pubsub()
    pubsub.subscribe(band)
    await websocket.accept()

    async def forward() -> None:
        for message in pubsub.listen():
            if message["type"] == "message":
                await websocket.send_text(f"{band}: {message['data']}")

    listener = asyncio.create_task(forward())
    try:
        while True:
            redis.publish(band, await websocket.receive_text())
    except WebSocketDisconnect:
        listener.cancel()
