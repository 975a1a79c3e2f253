"""Thinks in a task for each slow text, and looks after none of them.

fails: test_leaving_before_a_slow_answer_is_quiet
outcome: server crashed
advice: catch it where you send
"""

import asyncio

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

app = FastAPI()
tasks: set[asyncio.Task[None]] = set()


async def answer_later(websocket: WebSocket, text: str) -> None:
    await asyncio.sleep(0.5)
    await websocket.send_text(f"Polly: {text}")


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
                answer = answer_later(websocket, text.removeprefix("slow "))
                task = asyncio.create_task(answer)
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                await websocket.send_text(f"Polly: {text}")
    except WebSocketDisconnect:
        pass
