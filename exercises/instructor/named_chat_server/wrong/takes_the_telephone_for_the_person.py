"""Compares connections: the speaker's other telephone hears a stranger.

fails: test_two_telephones_are_one_person
outcome: wrong message
advice: all of them hear `You said: `
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
            for connection in list(connections):
                who = "You said" if connection is websocket else f"{name} says"
                await connection.send_text(f"{who}: {message['text']}")
    finally:
        del connections[websocket]
        if name not in connections.values():
            await tell(f"{name} hung up")
