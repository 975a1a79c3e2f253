"""Takes the word off wherever it stands, and not only the first one.

fails: test_a_slow_text_is_answered
outcome: wrong message
advice: take the first word off
"""

import asyncio

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

app = FastAPI()


@app.websocket("/ws/parrot")
async def parrot(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is None:
                raise WebSocketException(1003, "text only")
            text = message["text"]
            if text.startswith("slow "):
                await asyncio.sleep(0.5)
                text = text.replace("slow ", "")
            await websocket.send_text(f"Polly: {text}")
    except WebSocketDisconnect:
        pass
