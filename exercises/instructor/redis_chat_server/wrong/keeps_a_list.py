"""Keeps the connections in a list, as every chat for one process does.

fails: test_a_call_is_heard_on_both_masts
outcome: silence
advice: the other mast is another process
"""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
bands: dict[str, list[WebSocket]] = {}


@app.websocket("/bands/{band}")
async def radio(websocket: WebSocket, band: str) -> None:
    await websocket.accept()
    bands.setdefault(band, []).append(websocket)
    try:
        while True:
            text = await websocket.receive_text()
            for rescuer in list(bands[band]):
                await rescuer.send_text(f"{band}: {text}")
    except WebSocketDisconnect:
        bands[band].remove(websocket)
