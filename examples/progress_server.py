"""Progress: long work runs in worker threads, and its client hears how far it is.

The server accepts the opening handshake and starts a job: it computes a SHA-256 hash.
After each tenth of the work it sends a text, `Progress update: 10% complete` and so on to
`Progress update: 100% complete`, and then closes with code 1000, the hash as the reason.
What the client sends is read and ignored. A client that leaves cancels its job.

In the folder examples:

    uvicorn progress_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in a browser, or listen in a second terminal:

    python -m websockets ws://127.0.0.1:8000/ws/stream_progress

asyncio.to_thread() has a few threads more than the machine has processors. That many jobs
run at once; if there are more, they take turns, block by block. What else needs a thread,
such as a name look-up, then waits, too, unless the jobs have a ThreadPoolExecutor of their
own.
Notebook: notebooks/09_progress_server.ipynb. Exercise: exercises/progress_server.
"""

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status
from fastapi.responses import FileResponse

PAGE = Path(__file__).with_suffix(".html")
BLOCK = bytes(8 * 1024 * 1024)  # what is hashed, again and again
TENTH = 50  # blocks in a tenth of the job

app = FastAPI()


async def drain(websocket: WebSocket) -> None:
    """Read and ignore what the client sends; raise WebSocketDisconnect when it has left."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


async def work(websocket: WebSocket) -> None:
    """Hash ten tenths, tell the client after each, then close."""
    digest = hashlib.sha256()
    for percent in range(10, 101, 10):
        for _ in range(TENTH):
            # A call in a thread cannot be cancelled: it goes on, and nobody waits for it.
            # So each call is short, some milliseconds, and a cancelled job makes no more.
            # While it hashes a long block, the thread releases Python's global lock. Work
            # in pure Python would slow down the event loop: it needs a process.
            await asyncio.to_thread(digest.update, BLOCK)
        # Sending raises RuntimeError if uvicorn has given up the client, and receive()
        # reports that. It is caught here alone: one of the work itself must be logged.
        with suppress(RuntimeError):
            await websocket.send_text(f"Progress update: {percent}% complete")
    with suppress(RuntimeError):
        await websocket.close(status.WS_1000_NORMAL_CLOSURE, digest.hexdigest())


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/stream_progress")
async def stream_progress(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        # One task reads, one works. If either fails, the group cancels the other.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work(websocket))
            await drain(websocket)
    except* WebSocketDisconnect:
        # The client has gone. Or the job is done: after close(), receive() reports the end
        # on our side, too.
        pass
