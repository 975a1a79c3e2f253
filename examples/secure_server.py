"""Secure: a token in the opening handshake decides who may connect.

One dependency guards both paths. A client with the right token is greeted, and each of its
texts is answered. For anybody else, `WebSocketException(1008)` is raised before the
connection is accepted, and that is HTTP 403 on the wire: without a connection there is no
close frame, so no client ever sees the 1008, and a browser shows 1006.

In the folder examples:

    uvicorn secure_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in a browser, or talk to it from a second terminal:

    python -m websockets "ws://127.0.0.1:8000/ws/secure?token=secret-token"

A page in a browser can put the token only into the URL, and uvicorn logs the URLs of
WebSockets, also with `--no-access-log`, but not with `--log-level warning`. A program
should send the header `Authorization: Bearer secret-token` instead.

The environment variable TOKEN replaces `secret-token`, which everybody can read here; an
empty TOKEN lets nobody in. One token for everybody says that a client may connect, not who
it is. Notebook: notebooks/06_secure_server.ipynb. Exercise: exercises/secure_server.
"""

import hmac
import os
from pathlib import Path
from typing import Annotated

from fastapi import (
    Depends,
    FastAPI,
    Header,
    Query,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.responses import FileResponse

PAGE = Path(__file__).with_suffix(".html")
TOKEN = os.environ.get("TOKEN", "secret-token")

app = FastAPI()


async def authenticate(
    token: Annotated[str, Query()] = "",
    authorization: Annotated[str, Header()] = "",
) -> str:
    """Return the name of the user, or refuse the opening handshake."""
    # The header is `Bearer`, in any case (RFC 9110 section 11.1), a space, and the token.
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        token = credentials.strip()
    # `==` stops at the first difference, so its duration tells how much of a guess is
    # right. compare_digest() does not; it takes bytes, or text that is ASCII.
    if not token or not hmac.compare_digest(token.encode(), os.fsencode(TOKEN)):
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "wrong or missing token")
    return "authenticated_user"


# An endpoint with a parameter of this type is never called without the right token.
User = Annotated[str, Depends(authenticate)]


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; close with 1003 if the client sends anything else."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str | None = message.get("text")
    if text is None:
        raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    return text


async def converse(websocket: WebSocket, greeting: str, label: str) -> None:
    """Accept, greet, and answer each text with the label and the text."""
    await websocket.accept()
    try:
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


@app.websocket("/ws/secure")
async def secure(websocket: WebSocket, user: User) -> None:
    greeting = f"Hello, {user}! Welcome to the secure WebSocket."
    await converse(websocket, greeting, "You said")


@app.websocket("/ws/notify")
async def notify(websocket: WebSocket, user: User) -> None:
    greeting = f"Hello, {user}! You are now connected to secure notifications."
    await converse(websocket, greeting, "Notification received")
