"""Looks at the clock whenever a text comes, and never while the guest is silent.

fails: test_a_badge_runs_out
outcome: silence
advice: wait for no message to look
"""

import os
import time
from typing import Annotated

import jwt
from fastapi import (
    Cookie,
    Depends,
    FastAPI,
    Query,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from pydantic import BaseModel, ValidationError

SECRET_KEY = os.environ.get("SECRET_KEY", "for my own tries, and never for others")
BAD_BADGE, NOT_YOURS = 4001, 4003

app = FastAPI()


class Claims(BaseModel):
    sub: str
    exp: float  # seconds since 1970


def read(badge: str) -> Claims | None:
    """Return what a badge says, or None if it is not good."""
    try:
        # PyJWT checks `exp` only where there is one, unless told to insist.
        options = {"require": ["sub", "exp"]}
        return Claims(**jwt.decode(badge, SECRET_KEY, ["HS256"], options))
    except (jwt.InvalidTokenError, ValidationError):
        return None


def identify(
    websocket: WebSocket,
    query: Annotated[str, Query(alias="badge")] = "",
    cookie: Annotated[str, Cookie(alias="badge")] = "",
) -> Claims | None:
    # A browser adds the cookie also to what a page of another site asks for.
    origin = websocket.headers.get("origin")
    ours = origin is None or origin.partition("://")[2] == websocket.headers.get("host")
    if cookie and not query and not ours:
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION)
    return read(query or cookie)


@app.websocket("/lab/{room}")
async def lab(
    websocket: WebSocket, room: str, claims: Annotated[Claims | None, Depends(identify)]
) -> None:
    await websocket.accept()
    if claims is None:
        await websocket.close(BAD_BADGE, "no good badge")
        return
    if room.startswith("office-") and room != f"office-{claims.sub}":
        await websocket.close(NOT_YOURS, "this is not your office")
        return
    try:
        await websocket.send_text(f"Come in, {claims.sub}")
        while True:
            text = await websocket.receive_text()
            if time.time() >= claims.exp:
                await websocket.close(BAD_BADGE, "your badge has run out")
                return
            await websocket.send_text(f"{claims.sub} wrote: {text}")
    except WebSocketDisconnect:
        pass
