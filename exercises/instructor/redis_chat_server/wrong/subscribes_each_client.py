"""Opens a subscription, and a connection to Redis, for each client.

fails: test_a_mast_subscribes_once_a_band
outcome: wrong message
advice: the others share that subscription
"""

import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from redis.asyncio import Redis

redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)

app = FastAPI()


@app.websocket("/bands/{band}")
async def radio(websocket: WebSocket, band: str) -> None:
    pubsub = redis.pubsub()
    await pubsub.subscribe(f"radio:{band}")
    await pubsub.get_message(timeout=None)
    await websocket.accept()

    async def forward() -> None:
        async for message in pubsub.listen():
            if message["type"] == "message":
                await websocket.send_text(f"{band}: {message['data']}")

    listener = asyncio.create_task(forward())
    try:
        while True:
            await redis.publish(f"radio:{band}", await websocket.receive_text())
    except WebSocketDisconnect:
        pass
    finally:
        listener.cancel()
        await pubsub.aclose()
