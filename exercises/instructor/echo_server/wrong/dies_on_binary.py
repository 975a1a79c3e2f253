"""Assumes that every message is text, as most tutorials do.

fails: test_a_binary_message_is_closed_with_1003
outcome: server crashed
advice: receive_text() fails on a binary message
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.websocket("/ws/parrot")
async def parrot(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            await websocket.send_text(f"Polly: {text}")
    except WebSocketDisconnect:
        pass
