"""A server for trying out the departure board: it breaks the line every few trains.

Run it with `uvicorn railway:app --timeout-graceful-shutdown 1`.
"""

import asyncio
import random
import secrets
from typing import Annotated

from fastapi import FastAPI, Query, WebSocket, WebSocketDisconnect

RUN = secrets.token_hex(2)
PACE = 1.0  # seconds from one train to the next
PLACES = ["Praha", "Brno", "Kolín", "Pardubice", "Olomouc"]

app = FastAPI()
known: list[str] = []  # the texts of all trains; train 1 is the first


def announce() -> None:
    """Make the next train known."""
    place, platform = random.choice(PLACES), random.randint(1, 4)
    known.append(f"{len(known) + 1}: {place}, platform {platform}")


@app.websocket("/ws/trains")
async def trains(
    websocket: WebSocket,
    run: Annotated[str | None, Query()] = None,
    after: Annotated[int, Query(ge=0)] = 0,
) -> None:
    await websocket.accept()
    try:
        await websocket.send_json({"type": "hello", "run": RUN})
        # Sometimes one too many is sent again, as real servers do.
        number = max(0, after - random.randint(0, 1)) if run == RUN else 0
        for _ in range(random.randint(1, 6)):
            if number == len(known):
                await asyncio.sleep(PACE)
                announce()
            number += 1
            message = {"type": "train", "number": number, "text": known[number - 1]}
            await websocket.send_json(message)
        await websocket.close(random.choice([1000, 1012, 1013]))
    except WebSocketDisconnect:
        pass
