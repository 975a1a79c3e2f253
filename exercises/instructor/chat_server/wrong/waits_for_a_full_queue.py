"""Gives each guest a bounded queue and a writer, and awaits `put`: a full queue stops all.

fails: test_a_guest_who_stops_reading_delays_nobody
outcome: silence
advice: put into them without waiting
"""

import asyncio
import contextlib

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

app = FastAPI()
queues: set[asyncio.Queue[str]] = set()


async def broadcast(text: str) -> None:
    for queue in queues.copy():
        await queue.put(text)


async def write(websocket: WebSocket, queue: asyncio.Queue[str]) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await websocket.send_text(await queue.get())


@app.websocket("/ws/stage")
async def stage(websocket: WebSocket) -> None:
    await websocket.accept()
    queue: asyncio.Queue[str] = asyncio.Queue(100)
    queues.add(queue)
    writer = asyncio.create_task(write(websocket, queue))
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is None:
                raise WebSocketException(1003, "text only")
            await broadcast(f"Someone: {message['text']}")
    finally:
        queues.discard(queue)
        writer.cancel()
        await broadcast("Someone left")
