"""Leaves the parameter a string, and adds 1 to it.

fails: test_the_bell_rings_one_floor_above
outcome: server crashed
advice: unless its annotation says otherwise
"""

from fastapi import APIRouter, FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
cellar = APIRouter(prefix="/cellar")


async def answer(websocket: WebSocket, before: str) -> None:
    """Answer each text with the same text, and something before it."""
    try:
        while True:
            await websocket.send_text(before + await websocket.receive_text())
    except WebSocketDisconnect:
        pass


# Before /desk/{name}, which fits this path too.
@app.websocket("/desk/emergency")
async def emergency(websocket: WebSocket) -> None:
    await websocket.accept()
    await answer(websocket, "Help is coming: ")


@app.websocket("/desk/{name}")
async def desk(websocket: WebSocket, name: str) -> None:
    await websocket.accept()
    await websocket.send_text(f"{name} is listening")
    await answer(websocket, f"{name} writes down: ")


@app.websocket("/floor/{number}/bell")
async def bell(websocket: WebSocket, number: str) -> None:
    await websocket.accept()
    await answer(websocket, f"Floor {number + 1} hears: ")


@cellar.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await answer(websocket, "The cellar echoes: ")


@cellar.websocket("/{shelf}/ws")
async def echo_shelf(websocket: WebSocket, shelf: str) -> None:
    await websocket.accept()
    await answer(websocket, f"Shelf {shelf} echoes: ")


app.include_router(cellar)
