"""Lets WebSocketDisconnect leave the handler: a traceback for each one who hangs up.

fails: test_the_rest_hear_who_hung_up
outcome: server crashed
advice: catch WebSocketDisconnect around the whole conversation
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

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
                raise WebSocketDisconnect(message["code"])
            if message.get("text") is None:
                raise WebSocketException(1003, "text only")
            for connection, owner in list(connections.items()):
                who = "You said" if owner == name else f"{name} says"
                await connection.send_text(f"{who}: {message['text']}")
    finally:
        del connections[websocket]
        if name not in connections.values():
            await tell(f"{name} hung up")
