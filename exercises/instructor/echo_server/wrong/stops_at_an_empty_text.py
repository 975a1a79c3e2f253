"""Takes an empty text for the end of the conversation.

fails: test_visitors_are_independent
outcome: closed early
advice: an empty text counts as false
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.websocket("/ws/parrot")
async def parrot(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while text := await websocket.receive_text():
            await websocket.send_text(f"Polly: {text}")
        await websocket.close()
    except WebSocketDisconnect:
        pass
