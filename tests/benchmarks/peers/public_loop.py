"""The broadcast of the public tutorials: a list of connections, and a loop that awaits.

Written after the chat of FastAPI's documentation on WebSockets, which is there to show the
API: https://fastapi.tiangolo.com/advanced/websockets/#handling-disconnections-and-multiple-clients
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
connections: list[WebSocket] = []


async def broadcast(message: str) -> None:
    for connection in connections:
        await connection.send_text(message)


@app.websocket("/ws/chat")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    connections.append(websocket)
    try:
        while True:
            text = await websocket.receive_text()
            await broadcast(f"Client says: {text}")
    except WebSocketDisconnect:
        connections.remove(websocket)
        await broadcast("A client left the chat")
