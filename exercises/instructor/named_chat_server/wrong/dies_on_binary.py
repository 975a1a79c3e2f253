"""Assumes that every message is text, and cleans up after a polite leave only.

fails: test_noise_ends_one_telephone
outcome: server crashed
advice: receive_text() fails on a binary message
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
connections: dict[WebSocket, str] = {}


async def tell(text: str) -> None:
    for connection in list(connections):
        await connection.send_text(text)


@app.websocket("/line/{name}")
async def line(websocket: WebSocket, name: str) -> None:
    await websocket.accept()
    if name not in connections.values():
        await tell(f"{name} picked up")
    connections[websocket] = name
    people = sorted(set(connections.values()))
    await websocket.send_text(f"On the line: {', '.join(people)}")
    try:
        while True:
            text = await websocket.receive_text()
            for connection, owner in list(connections.items()):
                who = "You said" if owner == name else f"{name} says"
                await connection.send_text(f"{who}: {text}")
    except WebSocketDisconnect:
        del connections[websocket]
        if name not in connections.values():
            await tell(f"{name} hung up")
