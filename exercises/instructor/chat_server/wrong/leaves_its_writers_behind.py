"""Gives each guest a queue and a writer, and neither ends nor catches the writers.

fails: test_guests_come_and_go_during_a_broadcast
outcome: server crashed
advice: catch what sending to a guest who has gone raises
"""

import asyncio
import contextlib

from fastapi import FastAPI, WebSocket, WebSocketException

app = FastAPI()
queues: set[asyncio.Queue[str]] = set()
writers: set[asyncio.Task[None]] = set()


def broadcast(text: str) -> None:
    for queue in queues:
        with contextlib.suppress(asyncio.QueueFull):
            queue.put_nowait(text)


async def write(websocket: WebSocket, queue: asyncio.Queue[str]) -> None:
    while True:
        await websocket.send_text(await queue.get())


@app.websocket("/ws/stage")
async def stage(websocket: WebSocket) -> None:
    await websocket.accept()
    queue: asyncio.Queue[str] = asyncio.Queue(100)
    queues.add(queue)
    writer = asyncio.create_task(write(websocket, queue))
    writers.add(writer)
    # The result is looked at, and so an exception is never reported by asyncio itself.
    writer.add_done_callback(lambda done: done.result())
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is None:
                raise WebSocketException(1003, "text only")
            broadcast(f"Someone: {message['text']}")
            await asyncio.sleep(0)
    finally:
        queues.discard(queue)
        broadcast("Someone left")
