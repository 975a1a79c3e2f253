"""A stage whose audience cannot stop the show: one possible solution."""

import asyncio
import contextlib

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

QUEUE_SIZE = 100  # remarks that may wait for one guest

app = FastAPI()
queues: set[asyncio.Queue[str]] = set()


def broadcast(text: str) -> None:
    """Put a text into everybody's queue; a guest whose queue is full misses it."""
    for queue in queues:
        with contextlib.suppress(asyncio.QueueFull):
            queue.put_nowait(text)


async def write(websocket: WebSocket, queue: asyncio.Queue[str]) -> None:
    # When the guest has gone, its handler learns of it while receiving.
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await websocket.send_text(await queue.get())


@app.websocket("/ws/stage")
async def stage(websocket: WebSocket) -> None:
    await websocket.accept()
    queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_SIZE)
    queues.add(queue)
    writer = asyncio.create_task(write(websocket, queue))
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("text") is None:
                writer.cancel()
                await websocket.close(status.WS_1003_UNSUPPORTED_DATA, "text only")
                break
            broadcast(f"Someone: {message['text']}")
            # Remarks that arrive together are read without a pause; the writers need one.
            await asyncio.sleep(0)
    except WebSocketDisconnect:
        pass
    finally:
        queues.discard(queue)
        writer.cancel()
        broadcast("Someone left")
