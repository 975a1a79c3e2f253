"""A server that tells only of ships that left politely."""

from harbour import Harbour, Ship

POLITE = (1000, 1001)  # close codes


class Broken(Harbour):
    async def leave(self, ship: Ship, code: int) -> None:
        if code in (*POLITE, 1003):
            await super().leave(ship, code)
        else:
            self.ships.remove(ship)


app = Broken().app
