"""Answers the first text and ends, as a function that handles one request would.

fails: test_every_text_is_repeated
outcome: closed early
advice: receive and answer in a loop
"""

from fastapi import FastAPI, WebSocket

app = FastAPI()


@app.websocket("/ws/parrot")
async def parrot(websocket: WebSocket) -> None:
    await websocket.accept()
    text = await websocket.receive_text()
    await websocket.send_text(f"Polly: {text}")
    await websocket.close()
