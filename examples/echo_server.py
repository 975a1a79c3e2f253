"""Echo: one connection, text in, text out.

The server accepts the opening handshake, the HTTP request with which each connection
begins, and answers each text message `T` with the text `Echo: T`, in order, until the
client leaves. A binary message closes the connection with code 1003 (unsupported data,
RFC 6455 section 7.4.1).

In the folder examples:

    uvicorn echo_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in a browser, or talk to it from a second terminal:

    python -m websockets ws://127.0.0.1:8000/ws/echo

A message may be as large as uvicorn allows, 16 MiB by default; a larger one is closed
with 1009. If a client does not read its answers, the server waits for it, and for nobody
else; the last option above ends the server after Ctrl-C all the same.
Notebook: notebooks/01_echo_server.ipynb. Exercise: exercises/echo_server.
"""

from pathlib import Path

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from fastapi.responses import FileResponse

PAGE = Path(__file__).with_suffix(".html")

app = FastAPI()


# WebSocket.receive_text() fails on a binary message with a KeyError. All that the client
# sees is that its connection breaks.
async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; close with 1003 if the client sends anything else."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str | None = message.get("text")
    if text is None:
        raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text messages only")
    return text


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.websocket("/ws/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            text = await receive_text(websocket)
            await websocket.send_text(f"Echo: {text}")
    except (WebSocketDisconnect, RuntimeError):
        # The client has gone: receiving raises the first of these, sending either. There
        # is nobody to answer, and one connection alone leaves nothing to clean up.
        pass
