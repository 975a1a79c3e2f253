"""Closes after a binary message, with the code of a normal end.

fails: test_a_binary_message_is_closed_with_1003
outcome: wrong message
advice: the close code for data of the wrong kind is 1003
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.websocket("/ws/parrot")
async def parrot(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if "text" not in message:
                break
            await websocket.send_text(f"Polly: {message['text']}")
        await websocket.close(reason="text only")
    except WebSocketDisconnect:
        pass
