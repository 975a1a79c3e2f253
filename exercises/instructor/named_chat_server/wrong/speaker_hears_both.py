"""Broadcasts to everybody, and then answers the speaker as well.

fails: test_the_speaker_hears_another_text
outcome: wrong message
advice: nobody hears both
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
            await tell(f"{name} says: {message['text']}")
            await websocket.send_text(f"You said: {message['text']}")
    finally:
        del connections[websocket]
        if name not in connections.values():
            await tell(f"{name} hung up")
