"""Tells everybody that somebody left before forgetting that somebody.

fails: test_the_rest_hear_who_left
outcome: server crashed
advice: take the guest out of the collection
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
        await broadcast("Someone left")
        connections.remove(websocket)
