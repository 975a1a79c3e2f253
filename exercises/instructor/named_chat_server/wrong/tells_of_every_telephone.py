"""Tells of each connection, as if each were another person.

fails: test_two_telephones_are_one_person
outcome: wrong message
advice: a second one is no news
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
        await tell(f"{name} hung up")
