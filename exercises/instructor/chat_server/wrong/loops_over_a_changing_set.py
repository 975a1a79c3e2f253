"""Catches each failed send, but loops over the set that guests come to and go from.

fails: test_a_line_cut_during_a_broadcast_harms_nobody_else
outcome: server crashed
advice: loop over a copy of the collection
"""

import contextlib

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

app = FastAPI()
connections: set[WebSocket] = set()


async def broadcast(text: str) -> None:
    for connection in connections:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await connection.send_text(text)


@app.websocket("/ws/stage")
async def stage(websocket: WebSocket) -> None:
    await websocket.accept()
    connections.add(websocket)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is None:
                raise WebSocketException(1003, "text only")
            await broadcast(f"Someone: {message['text']}")
    finally:
        connections.discard(websocket)
        await broadcast("Someone left")
