"""A server that takes its time to tell who left."""

import asyncio

from harbour import Harbour, Ship

PAUSE = 0.2  # seconds


class Leisurely(Harbour):
    reason = ""

    async def leave(self, ship: Ship, code: int) -> None:
        self.ships.remove(ship)
        left_behind = list(self.ships)
        await asyncio.sleep(PAUSE)
        for other in left_behind:
            other.tell("A ship left")

    async def tell(self, text: str) -> None:
        # Who came last is told first.
        for ship in reversed(self.ships):
            ship.tell(text)


app = Leisurely().app
