"""A village line on which everybody knows who speaks: one possible solution."""

import asyncio
import contextlib

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status

QUEUE_SIZE = 100  # texts that may wait for one telephone

app = FastAPI()


class Telephone:
    """A connection of somebody, and the texts that wait to be sent on it."""

    def __init__(self, websocket: WebSocket, name: str) -> None:
        self.websocket = websocket
        self.name = name
        self.texts: asyncio.Queue[str] = asyncio.Queue(QUEUE_SIZE)

    def tell(self, text: str) -> None:
        """Leave a text for the writer; a telephone whose queue is full misses it."""
        with contextlib.suppress(asyncio.QueueFull):
            self.texts.put_nowait(text)

    async def write(self) -> None:
        # When the line is cut, the endpoint learns of it while receiving.
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await self.websocket.send_text(await self.texts.get())


telephones: set[Telephone] = set()


def people() -> set[str]:
    return {telephone.name for telephone in telephones}


def pick_up(newcomer: Telephone) -> None:
    if newcomer.name not in people():
        for telephone in telephones:
            telephone.tell(f"{newcomer.name} picked up")
    telephones.add(newcomer)
    newcomer.tell("On the line: " + ", ".join(sorted(people())))


def say(name: str, text: str) -> None:
    for telephone in telephones:
        who = "You said" if telephone.name == name else f"{name} says"
        telephone.tell(f"{who}: {text}")


def hang_up(gone: Telephone) -> None:
    telephones.discard(gone)
    if gone.name not in people():
        for telephone in telephones:
            telephone.tell(f"{gone.name} hung up")


@app.websocket("/line/{name}")
async def line(websocket: WebSocket, name: str) -> None:
    await websocket.accept()
    telephone = Telephone(websocket, name)
    writer = asyncio.create_task(telephone.write())
    pick_up(telephone)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("text") is None:
                # FastAPI closes with this code, after `finally`.
                raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text only")
            say(name, message["text"])
            # Texts that arrive together are read without a pause; the writers need one.
            await asyncio.sleep(0)
    finally:
        writer.cancel()
        hang_up(telephone)
