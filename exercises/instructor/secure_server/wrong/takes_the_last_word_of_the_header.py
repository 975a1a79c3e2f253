"""Takes the last word of the header for the key, whatever stands before it.

fails: test_the_header_opens_the_vault
outcome: unexpected message
advice: without the right key opens nothing
"""

import hmac
import os
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

TOKEN = os.environ.get("TOKEN", "secret")

app = FastAPI()


def fits(key: str | None) -> bool:
    # An empty TOKEN would be equal to no key at all.
    if not key:
        return False
    # Bytes, because compare_digest() raises for text beyond ASCII.
    return hmac.compare_digest(key.encode(), TOKEN.encode())


def has_key(
    key: Annotated[str | None, Query()] = None,
    authorization: Annotated[str | None, Header()] = None,
) -> bool:
    return fits(key) or fits((authorization or "").split(" ")[-1])


def refuse_without_key(allowed: Annotated[bool, Depends(has_key)]) -> None:
    if not allowed:
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION)


async def keep_notes(websocket: WebSocket) -> None:
    try:
        await websocket.send_text("The vault is open")
        while True:
            await websocket.send_text(f"Kept: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        pass


@app.websocket("/vault", dependencies=[Depends(refuse_without_key)])
async def vault(websocket: WebSocket) -> None:
    await websocket.accept()
    await keep_notes(websocket)


@app.websocket("/desk")
async def desk(websocket: WebSocket, allowed: Annotated[bool, Depends(has_key)]) -> None:
    await websocket.accept()
    if not allowed:
        # Only now: a code that is sent before the handshake is an HTTP 403 to a browser.
        await websocket.close(4001, "this key does not fit")
        return
    await keep_notes(websocket)
