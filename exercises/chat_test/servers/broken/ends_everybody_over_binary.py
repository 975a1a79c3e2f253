"""A server that closes everybody when one ship sends a binary message."""

from harbour import Harbour, Ship


class Broken(Harbour):
    async def hear_binary(self, ship: Ship) -> bool:
        for other in list(self.ships):
            await super().hear_binary(other)
        return False


app = Broken().app
