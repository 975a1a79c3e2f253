"""A server that drops ships that do not read."""

import asyncio

from harbour import Harbour, Ship


class Guest(Ship):
    # A time limit without a deadline; with one, the ship is dropped.
    stay: asyncio.Timeout

    def tell(self, text: str) -> None:
        try:
            self.waiting.put_nowait(text)
        except asyncio.QueueFull:
            if self.stay.when() is None:
                self.stay.reschedule(0)


class Strict(Harbour):
    ship = Guest

    async def listen(self, ship: Ship) -> int:
        assert isinstance(ship, Guest)
        ship.stay = asyncio.timeout(None)
        try:
            async with ship.stay:
                return await super().listen(ship)
        except TimeoutError:
            # When its handler returns, the connection is closed.
            return 1013


app = Strict().app
