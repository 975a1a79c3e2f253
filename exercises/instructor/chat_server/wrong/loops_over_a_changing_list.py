"""Catches each failed send, but loops over the list that guests come to and go from.

When zoe is taken out while the loop waits for her, the guest after her is skipped.

fails: test_guests_come_and_go_during_a_broadcast
outcome: silence
advice: others were skipped
"""

import contextlib

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

app = FastAPI()
connections: list[WebSocket] = []


async def broadcast(text: str) -> None:
    for connection in connections:
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
