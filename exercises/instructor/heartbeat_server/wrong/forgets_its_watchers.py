"""Starts a task that watches over each climber, and leaves it running when one goes.

fails: test_nothing_is_left_of_those_who_left
outcome: silence
advice: you cancel in `finally`
"""

import asyncio
import contextlib
import os
import time

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status

PATIENCE = float(os.environ.get("PATIENCE", "30"))  # seconds

app = FastAPI()
climbers: dict[str, "Watched"] = {}
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


class Watched:
    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.heard = time.monotonic()
        self.asked = False


async def watch(climber: str) -> None:
    while True:
        await asyncio.sleep(0.01)
        if climber not in climbers:
            continue
        watched = climbers[climber]
        silent = time.monotonic() - watched.heard
        if silent > PATIENCE:
            await tell_base(f"{climber} fell silent")
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await watched.websocket.close(4008, "no sign of life")
            return
        if silent > PATIENCE / 2 and not watched.asked:
            watched.asked = True
            # The climber may be going at this moment.
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await watched.websocket.send_text("Still there?")


@app.websocket("/wall/{climber}")
async def wall(websocket: WebSocket, climber: str) -> None:
    await websocket.accept()
    climbers[climber] = watched = Watched(websocket)
    watcher = asyncio.create_task(watch(climber))
    try:
        await tell_base(f"{climber} is on the wall")
        while True:
            text = await receive_text(websocket)
            watched.heard, watched.asked = time.monotonic(), False
            answer = "loud and clear" if text == "radio check" else f"Noted: {text}"
            await websocket.send_text(answer)
    except WebSocketDisconnect:
        pass
    except WebSocketException as refusal:
        await websocket.close(refusal.code, refusal.reason)
    finally:
        climbers.pop(climber, None)
        if not watcher.done():
            await tell_base(f"{climber} came down")


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
