"""Catches each failed send in a loop over a copy, and still awaits everybody in turn.

fails: test_a_guest_who_stops_reading_delays_nobody
outcome: silence
advice: give each guest a queue and a task that writes
"""

import contextlib

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

app = FastAPI()
connections: list[WebSocket] = []


async def broadcast(text: str) -> None:
    for connection in connections.copy():
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await connection.send_text(text)


@app.websocket("/ws/stage")
async def stage(websocket: WebSocket) -> None:
    await websocket.accept()
    connections.append(websocket)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is None:
                raise WebSocketException(1003, "text only")
            await broadcast(f"Someone: {message['text']}")
    finally:
        connections.remove(websocket)
        await broadcast("Someone left")
