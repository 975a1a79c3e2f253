"""Gives each telephone a bounded queue and a writer, and awaits `put`.

fails: test_off_the_hook_delays_nobody
outcome: silence
advice: put into them without waiting
"""

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

    async def tell(self, text: str) -> None:
        await self.texts.put(text)

    async def write(self) -> None:
        # When the line is cut, the endpoint learns of it while receiving.
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await self.websocket.send_text(await self.texts.get())


telephones: set[Telephone] = set()


def people() -> set[str]:
    return {telephone.name for telephone in telephones}


async def pick_up(newcomer: Telephone) -> None:
    if newcomer.name not in people():
        for telephone in telephones.copy():
            await telephone.tell(f"{newcomer.name} picked up")
    telephones.add(newcomer)
    await newcomer.tell("On the line: " + ", ".join(sorted(people())))


async def say(name: str, text: str) -> None:
    for telephone in telephones.copy():
        who = "You said" if telephone.name == name else f"{name} says"
        await telephone.tell(f"{who}: {text}")


async def hang_up(gone: Telephone) -> None:
    telephones.discard(gone)
    if gone.name not in people():
        for telephone in telephones.copy():
            await telephone.tell(f"{gone.name} hung up")


@app.websocket("/line/{name}")
async def line(websocket: WebSocket, name: str) -> None:
    await websocket.accept()
    telephone = Telephone(websocket, name)
    writer = asyncio.create_task(telephone.write())
    await pick_up(telephone)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("text") is None:
                # FastAPI closes with this code, after `finally`.
                raise WebSocketException(status.WS_1003_UNSUPPORTED_DATA, "text only")
            await say(name, message["text"])
    finally:
        writer.cancel()
        await hang_up(telephone)
