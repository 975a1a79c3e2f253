"""Lets WebSocketDisconnect leave the handler, as the first example of FastAPI's page does.

fails: test_leaving_is_quiet
outcome: server crashed
advice: end the conversation on either
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.websocket("/ws/parrot")
async def parrot(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        if message.get("text") is None:
            break
        await websocket.send_text(f"Polly: {message['text']}")
    await websocket.close(1003, "text only")
