"""Takes a guest out where sending fails, and once more where its own handler ends.

fails: test_a_line_cut_during_a_broadcast_harms_nobody_else
outcome: server crashed
advice: two places took the guest out
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

app = FastAPI()
connections: list[WebSocket] = []


async def broadcast(text: str) -> None:
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.remove(connection)


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
