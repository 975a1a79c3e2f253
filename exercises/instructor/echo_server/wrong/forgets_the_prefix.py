"""Sends the visitor's text back as it came.

fails: test_every_text_is_repeated
outcome: wrong message
advice: the answer is `Polly: `
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.websocket("/ws/parrot")
async def parrot(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass
