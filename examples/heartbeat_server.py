"""Heartbeat: a client that falls silent is closed, one that vanished is found.

The server answers the text `ping` with `pong` and any other text `T` with `You sent: T`.
If nothing was received for IDLE_TIMEOUT seconds, it closes the connection with code 1000
and the reason `Session timeout`. A binary message is closed with 1003.

In the folder examples:

    uvicorn heartbeat_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000, or `python -m websockets ws://127.0.0.1:8000/ws`.

A client that vanished without a word (no power, no network) is found by uvicorn: it sends
a ping of the protocol each `--ws-ping-interval` seconds (20) and ends the connection if no
pong comes within `--ws-ping-timeout` seconds (20). A browser answers these by itself, and
they never reach the application. Pings show that the line works, messages show that
somebody uses it.
Notebook: notebooks/13_heartbeat_server.ipynb. Exercise: exercises/heartbeat_server.
"""

import asyncio
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse

PAGE = Path(__file__).with_suffix(".html")
IDLE_TIMEOUT = 60.0  # seconds without a message
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame

app = FastAPI()


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; close with 1003 if the client sends anything else."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str | None = message.get("text")
    if text is None:
        raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    return text


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close the connection; wait at most CLOSE_TIMEOUT for a client that does not read."""
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        await asyncio.wait_for(websocket.close(code, reason), CLOSE_TIMEOUT)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws")
async def heartbeat(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            # The limit covers the answer, too: send_text() waits for a client that does
            # not read.
            async with asyncio.timeout(IDLE_TIMEOUT):
                text = await receive_text(websocket)
                await websocket.send_text("pong" if text == "ping" else f"You sent: {text}")
            # Messages that arrive together are read without a pause: others need a turn.
            await asyncio.sleep(0)
    except (WebSocketDisconnect, RuntimeError):
        # The client has gone: receiving raises the first of these, sending either.
        pass
    except TimeoutError:
        await close(websocket, status.WS_1000_NORMAL_CLOSURE, "Session timeout")
    except WebSocketException as error:
        await close(websocket, error.code, error.reason)
