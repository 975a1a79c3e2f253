"""Waits for all of the time, and asks nothing.

fails: test_a_silent_climber_is_asked_once
outcome: closed early
advice: after half of PATIENCE the watch asks
"""

import asyncio
import contextlib
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status

PATIENCE = float(os.environ.get("PATIENCE", "30"))  # seconds
WS_4008_SILENT = 4008  # codes from 4000 on are for applications to choose

app = FastAPI()
climbers: set[str] = set()
listeners: set[WebSocket] = set()


async def tell_base(text: str) -> None:
    """Send a text to all who listen at base camp."""
    for listener in list(listeners):
        # Of one that has gone, its own handler learns while receiving.
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await listener.send_text(text)


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; raise if there is none."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    if message.get("text") is None:
        raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    return message["text"]


async def sign_of_life(websocket: WebSocket) -> str:
    return await asyncio.wait_for(receive_text(websocket), PATIENCE)


@app.websocket("/wall/{climber}")
async def wall(websocket: WebSocket, climber: str) -> None:
    await websocket.accept()
    fate, end = "came down", None
    climbers.add(climber)
    try:
        await tell_base(f"{climber} is on the wall")
        while True:
            text = await sign_of_life(websocket)
            answer = "loud and clear" if text == "radio check" else f"Noted: {text}"
            await websocket.send_text(answer)
    except WebSocketDisconnect:
        pass
    except WebSocketException as refusal:
        end = refusal
    except TimeoutError:
        fate, end = "fell silent", WebSocketException(WS_4008_SILENT, "no sign of life")
    finally:
        climbers.discard(climber)
        # Before the close, which may have to wait for a telephone that does not read.
        await tell_base(f"{climber} {fate}")
    if end:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await websocket.close(end.code, end.reason)


@app.websocket("/base")
async def base(websocket: WebSocket) -> None:
    await websocket.accept()
    listeners.add(websocket)
    try:
        await websocket.send_text(f"On the wall: {', '.join(sorted(climbers)) or 'nobody'}")
        # Reading tells the server that somebody left.
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
    except WebSocketDisconnect:
        pass
    finally:
        listeners.discard(websocket)
