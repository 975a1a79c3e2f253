"""Tells in finally that the climber came down, also of one who fell silent.

fails: test_base_camp_hears_who_fell_silent
outcome: wrong message
advice: did not `come down` as well
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
    """Return the next text; ask for one in the middle of a silence, raise at its end."""
    try:
        async with asyncio.timeout(PATIENCE / 2):
            return await receive_text(websocket)
    except TimeoutError:
        await websocket.send_text("Still there?")
    async with asyncio.timeout(PATIENCE / 2):
        return await receive_text(websocket)


@app.websocket("/wall/{climber}")
async def wall(websocket: WebSocket, climber: str) -> None:
    await websocket.accept()
    end = None
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
        await tell_base(f"{climber} fell silent")
        end = WebSocketException(WS_4008_SILENT, "no sign of life")
    finally:
        climbers.discard(climber)
        await tell_base(f"{climber} came down")
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
