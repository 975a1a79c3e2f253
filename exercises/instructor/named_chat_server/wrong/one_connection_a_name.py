"""Keeps one connection for each name: the second telephone makes the first one deaf.

fails: test_two_telephones_are_one_person
outcome: silence
advice: keeps only the last one of each name
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
connections: dict[str, WebSocket] = {}


async def tell(text: str) -> None:
    for connection in list(connections.values()):
        await connection.send_text(text)


@app.websocket("/line/{name}")
async def line(websocket: WebSocket, name: str) -> None:
    await websocket.accept()
    if name not in connections:
        await tell(f"{name} picked up")
    connections[name] = websocket
    await websocket.send_text(f"On the line: {', '.join(sorted(connections))}")
    try:
        while True:
            text = await websocket.receive_text()
            for owner, connection in list(connections.items()):
                who = "You said" if owner == name else f"{name} says"
                await connection.send_text(f"{who}: {text}")
    except WebSocketDisconnect:
        connections.pop(name, None)
        await tell(f"{name} hung up")
