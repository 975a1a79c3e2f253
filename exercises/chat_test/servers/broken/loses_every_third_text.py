"""A server that loses every third text."""

from harbour import Harbour, Ship


class Broken(Harbour):
    count = 0

    async def hear(self, ship: Ship, text: str) -> None:
        self.count += 1
        if self.count % 3:
            await super().hear(ship, text)


app = Broken().app
