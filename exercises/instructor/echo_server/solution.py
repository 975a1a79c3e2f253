"""A parrot that answers everybody and keeps nobody waiting: one possible solution."""

import asyncio

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

THINKING = 0.5  # seconds

app = FastAPI()


@app.websocket("/ws/parrot")
async def parrot(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            # Not `if not text`: an empty text is to be answered.
            if text is None:
                break
            if text.startswith("slow "):
                # The event loop serves the other visitors meanwhile.
                await asyncio.sleep(THINKING)
                text = text.removeprefix("slow ")
            await websocket.send_text(f"Polly: {text}")
        await websocket.close(status.WS_1003_UNSUPPORTED_DATA, "Polly reads text only")
    except WebSocketDisconnect:
        # The visitor left while Polly was about to speak.
        pass
