"""Ways to broadcast, from the least that a delivery can be to the usual designs.

`/ws/frame` writes a frame that is built once; `/ws/asgi` awaits uvicorn's `send`, without a
framework. With FastAPI, `/ws/gather` makes a task for each delivery, as many chats do.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from websockets.frames import Frame, Opcode

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

framework = FastAPI()
sends: list[Send] = []
connections: list[WebSocket] = []


async def frame(message: str) -> None:
    """Past uvicorn's encoder, and past every care for a client that does not read."""
    data = Frame(Opcode.TEXT, message.encode()).serialize(mask=False)
    for send in sends:
        send.__self__.transport.write(data)  # type: ignore[attr-defined]


async def asgi(message: str) -> None:
    for send in sends:
        await send({"type": "websocket.send", "text": message})


BARE = {"/ws/frame": frame, "/ws/asgi": asgi}


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The two without a framework; the third goes to FastAPI."""
    broadcast = BARE.get(scope.get("path", ""))
    if not broadcast:
        await framework(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    sends.append(send)
    while (message := await receive())["type"] == "websocket.receive":
        await broadcast(f"Client says: {message['text']}")
    sends.remove(send)


@framework.websocket("/ws/gather")
async def gather(websocket: WebSocket) -> None:
    await websocket.accept()
    connections.append(websocket)
    with suppress(WebSocketDisconnect):
        while True:
            message = f"Client says: {await websocket.receive_text()}"
            sending = (connection.send_text(message) for connection in connections)
            await asyncio.gather(*sending, return_exceptions=True)
    connections.remove(websocket)
