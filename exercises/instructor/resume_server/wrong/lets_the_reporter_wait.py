"""Sends each line to every reader in turn, while the reporter waits.

fails: test_nothing_is_lost_while_a_reader_catches_up
outcome: silence
advice: either post_line waits for a reader who is slow
"""

import contextlib
import secrets
from collections import deque
from typing import Annotated

from fastapi import FastAPI, Query, WebSocket, WebSocketDisconnect
from pydantic import BaseModel

KEEP = 50  # lines
EDITION = secrets.token_hex(8)

app = FastAPI()


class NewLine(BaseModel):
    text: str


class Line(BaseModel):
    kind: str = "line"
    number: int
    text: str


last = 0
kept: deque[Line] = deque(maxlen=KEEP)
readers: set[WebSocket] = set()


@app.post("/lines", status_code=201)
async def post_line(new: NewLine) -> Line:
    global last
    last += 1
    line = Line(number=last, text=new.text)
    kept.append(line)
    for reader in list(readers):
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await reader.send_text(line.model_dump_json())
    return line


async def drain(websocket: WebSocket) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


@app.websocket("/ticker")
async def ticker(
    websocket: WebSocket,
    seen: Annotated[int | None, Query(ge=0)] = None,
    edition: Annotated[str, Query()] = EDITION,
) -> None:
    await websocket.accept()
    after = last if seen is None else seen
    complete = edition == EDITION and last - len(kept) <= after <= last
    if seen is None:
        complete = True
    old = [line for line in kept if line.number > after or not complete]
    readers.add(websocket)
    welcome = {"kind": "welcome", "edition": EDITION, "complete": complete}
    try:
        await websocket.send_json(welcome)
        for line in old:
            await websocket.send_text(line.model_dump_json())
        await drain(websocket)
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        readers.discard(websocket)
