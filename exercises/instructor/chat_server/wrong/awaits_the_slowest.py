"""Sends to all at once with gather, and still waits until the last has taken it.

fails: test_a_guest_who_stops_reading_delays_nobody
outcome: silence
advice: give each guest a queue and a task that writes
"""

import asyncio

from fastapi import FastAPI, WebSocket, WebSocketException

app = FastAPI()
connections: set[WebSocket] = set()


async def broadcast(text: str) -> None:
    sends = [connection.send_text(text) for connection in connections]
    await asyncio.gather(*sends, return_exceptions=True)


@app.websocket("/ws/stage")
async def stage(websocket: WebSocket) -> None:
    await websocket.accept()
    connections.add(websocket)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is None:
                raise WebSocketException(1003, "text only")
            await broadcast(f"Someone: {message['text']}")
    finally:
        connections.discard(websocket)
        await broadcast("Someone left")
