"""Thinks with time.sleep, and the whole shop stands still.

fails: test_nobody_waits_for_a_slow_answer
outcome: event loop blocked
advice: await asyncio.sleep(0.5)
"""

import time

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
                time.sleep(0.5)  # noqa: ASYNC251
                text = text.removeprefix("slow ")
            await websocket.send_text(f"Polly: {text}")
    except WebSocketDisconnect:
        pass
