"""Awaits everybody in turn, as the ConnectionManager of FastAPI's documentation does.

One guest's dead line raises in the handler of whoever is speaking.

fails: test_a_line_cut_during_a_broadcast_harms_nobody_else
outcome: closed early
advice: catch the failure of each send where it happens
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

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
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            if message.get("text") is None:
                connections.remove(websocket)
                await broadcast("Someone left")
                raise WebSocketException(1003, "text only")
            await broadcast(f"Someone: {message['text']}")
    except WebSocketDisconnect:
        connections.remove(websocket)
        await broadcast("Someone left")
