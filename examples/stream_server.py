"""Stream: the server talks at a steady pace, and ends the connection itself.

The server accepts the opening handshake, sends the text `Streaming message 1` at once and
one more each INTERVAL, and closes with code 1000 (normal closure, RFC 6455 section 7.4.1)
right after `Streaming message 10`. What the client sends is read and ignored. A client
that leaves stops its stream at once.

In the folder examples:

    uvicorn stream_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in a browser, or listen in a second terminal:

    python -m websockets ws://127.0.0.1:8000/ws/stream

Each connection has a stream of its own, from the first message on. If a client reads
slowly, its stream waits for it; the others do not.
Notebook: notebooks/08_stream_server.ipynb. Exercise: exercises/stream_server.
"""

import asyncio
from pathlib import Path
from time import monotonic

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status
from fastapi.responses import FileResponse

PAGE = Path(__file__).with_suffix(".html")
COUNT = 10  # messages in a stream
INTERVAL = 1.0  # seconds from one message to the next

app = FastAPI()


async def drain(websocket: WebSocket) -> None:
    """Read and ignore what the client sends; raise WebSocketDisconnect when it has left."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


async def send_stream(websocket: WebSocket) -> None:
    """Send the messages, each at its time, then close."""
    start = monotonic()
    for n in range(COUNT):
        # The time of each message counts from the start. To sleep INTERVAL after each of
        # them would add the time that sending takes, each time.
        await asyncio.sleep(start + n * INTERVAL - monotonic())
        await websocket.send_text(f"Streaming message {n + 1}")
    await websocket.close(status.WS_1000_NORMAL_CLOSURE)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/stream")
async def stream(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        # A server that only sends learns at the next message that its client left, or not
        # at all. Here one task reads and one sends. If either fails, the group cancels the
        # other.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_stream(websocket))
            await drain(websocket)
    except* (WebSocketDisconnect, RuntimeError):
        # The client has gone: receiving raises the first of these, sending either. Or the
        # stream is over: after close(), receive() reports the end on our side, too.
        pass
