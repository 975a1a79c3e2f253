"""Routes: the path of the opening handshake chooses the endpoint and carries parameters.

A WebSocket begins as an HTTP request, and FastAPI routes it by its path like any other:
a fixed path, one with a parameter, one whose parameter must be an integer, and one of a
router with a prefix. Each text message `T` is answered with a text that says which
endpoint it was. If no path matches, or a parameter has the wrong type, no endpoint runs:
the handshake is refused with HTTP 403, so there is no close code, and a browser shows 1006.

In the folder examples:

    uvicorn route_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in a browser, or talk to it from a second terminal:

    python -m websockets ws://127.0.0.1:8000/channels/7/ws

A parameter says what a client asks for, not who it is: anybody may connect as any
`client_id`. Notebook: notebooks/02_route_server.ipynb. Exercise: exercises/route_server.
"""

from pathlib import Path
from typing import Annotated

from fastapi import (
    APIRouter,
    FastAPI,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.responses import FileResponse
from pydantic import StringConstraints

PAGE = Path(__file__).with_suffix(".html")

app = FastAPI()
# Its routes begin with the prefix. In a larger app a router has a file of its own.
chat = APIRouter(prefix="/chat")
# A longer name does not fit the type, so its handshake is refused.
ClientId = Annotated[str, StringConstraints(max_length=64)]


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; close with 1003 if the client sends anything else."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str | None = message.get("text")
    if text is None:
        raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    return text


async def converse(websocket: WebSocket, label: str, greeting: str | None = None) -> None:
    """Accept, greet, and answer each text with the label and the text."""
    await websocket.accept()
    try:
        if greeting is not None:
            await websocket.send_text(greeting)
        while True:
            text = await receive_text(websocket)
            await websocket.send_text(f"{label}: {text}")
    except (WebSocketDisconnect, RuntimeError):
        # The client has gone: receiving raises the first of these, sending either.
        pass


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


# FastAPI tries the routes from top to bottom and takes the first that matches. A fixed path
# such as /ws/news has to come before /ws/{client_id}, which matches it as well.
@app.websocket("/ws")
async def fixed_path(websocket: WebSocket) -> None:
    await converse(websocket, "Message received")


# A parameter holds anything between two slashes, percent-decoded: `%0A` is a newline.
@app.websocket("/ws/{client_id}")
async def path_parameter(websocket: WebSocket, client_id: ClientId) -> None:
    greeting = f"Connected to client: {client_id}"
    await converse(websocket, f"Client {client_id} sent", greeting)


# FastAPI converts the parameter before it calls the endpoint. If it cannot, it refuses the
# handshake, and the endpoint never runs.
@app.websocket("/channels/{number}/ws")
async def typed_parameter(websocket: WebSocket, number: int) -> None:
    await converse(websocket, f"Channel {number} received")


@chat.websocket("/ws")
async def prefixed_path(websocket: WebSocket) -> None:
    await converse(websocket, "You sent")


# The router's routes are tried after all the routes before this line.
app.include_router(chat)
