"""Closes in `finally`, with 1000, before FastAPI could close with 1003.

fails: test_noise_ends_one_telephone
outcome: wrong message
advice: the close code is 1003
"""

from fastapi import FastAPI, WebSocket, WebSocketException

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
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("text") is None:
                raise WebSocketException(1003, "text only")
            for connection, owner in list(connections.items()):
                who = "You said" if owner == name else f"{name} says"
                await connection.send_text(f"{who}: {message['text']}")
    finally:
        del connections[websocket]
        if name not in connections.values():
            await tell(f"{name} hung up")
        await websocket.close()
