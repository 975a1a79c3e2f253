"""The harbour's radio as it should be; the servers in `right` and `broken` vary it."""

import asyncio
from contextlib import suppress

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

BEHIND = 20  # texts that may wait for one ship


class Ship:
    """A connection, the texts that wait for it, and the task that sends them."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.waiting: asyncio.Queue[str] = asyncio.Queue(BEHIND)
        self.writer = asyncio.create_task(self.write())

    def tell(self, text: str) -> None:
        """Leave a text for the writer; who is too far behind misses it."""
        with suppress(asyncio.QueueFull):
            self.waiting.put_nowait(text)

    async def write(self) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await self.websocket.send_text(await self.waiting.get())


class Harbour:
    """All ships, and what happens when one says something or leaves."""

    ship = Ship
    reason = "text only"  # of the close with 1003

    def __init__(self) -> None:
        self.ships: list[Ship] = []
        self.app = Starlette(routes=[WebSocketRoute("/ws/harbour", self.enter)])

    async def enter(self, websocket: WebSocket) -> None:
        await websocket.accept()
        ship = self.ship(websocket)
        self.ships.append(ship)
        code = 1006
        try:
            code = await self.listen(ship)
        finally:
            ship.writer.cancel()
            await self.leave(ship, code)

    async def listen(self, ship: Ship) -> int:
        """Take what a ship says until it leaves; returns its close code."""
        while True:
            message = await ship.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message["code"])
            if (text := message.get("text")) is not None:
                await self.hear(ship, text)
                # Texts that arrive together are read without a pause; writers need one.
                await asyncio.sleep(0)
            elif not await self.hear_binary(ship):
                return 1003

    async def hear(self, ship: Ship, text: str) -> None:
        await self.tell(f"Ship: {text}")

    async def hear_binary(self, ship: Ship) -> bool:
        """Whether a ship that sent a binary message may stay."""
        ship.writer.cancel()
        with suppress(WebSocketDisconnect, RuntimeError):
            await ship.websocket.close(1003, self.reason)
        return False

    async def leave(self, ship: Ship, code: int) -> None:
        self.ships.remove(ship)
        await self.tell("A ship left")

    async def tell(self, text: str) -> None:
        """Tell everybody."""
        for ship in list(self.ships):
            ship.tell(text)
