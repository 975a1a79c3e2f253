"""Leaves the sender out, as many a chat does.

fails: test_everybody_hears_everything
outcome: silence
advice: the text must reach everybody
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
connections: list[WebSocket] = []


@app.websocket("/ws/stage")
async def stage(websocket: WebSocket) -> None:
    await websocket.accept()
    connections.append(websocket)
    try:
        while True:
            text = await websocket.receive_text()
            for connection in connections:
                if connection is not websocket:
                    await connection.send_text(f"Someone: {text}")
    except WebSocketDisconnect:
        connections.remove(websocket)
