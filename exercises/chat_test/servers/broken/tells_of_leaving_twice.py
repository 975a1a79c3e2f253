"""A server that tells twice that a ship left."""

from harbour import Harbour, Ship


class Broken(Harbour):
    async def leave(self, ship: Ship, code: int) -> None:
        await super().leave(ship, code)
        await self.tell("A ship left")


app = Broken().app
