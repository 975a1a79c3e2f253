"""Assumes that every message is text, and cleans up only after a disconnect.

fails: test_a_binary_message_harms_its_sender_alone
outcome: server crashed
advice: receive_text() fails on a binary message
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
connections: list[WebSocket] = []


async def broadcast(text: str) -> None:
    for connection in connections:
        await connection.send_text(text)


@app.websocket("/ws/stage")
async def stage(websocket: WebSocket) -> None:
    await websocket.accept()
    connections.append(websocket)
    try:
        while True:
            await broadcast(f"Someone: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        connections.remove(websocket)
        await broadcast("Someone left")
