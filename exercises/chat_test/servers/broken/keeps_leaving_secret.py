"""A server that tells nobody that a ship left."""

from harbour import Harbour, Ship


class Broken(Harbour):
    async def leave(self, ship: Ship, code: int) -> None:
        self.ships.remove(ship)


app = Broken().app
