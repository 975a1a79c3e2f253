"""A server that throws out whoever speaks after another ship lost its line."""

from harbour import Harbour, Ship

EXPECTED = (1000, 1001, 1003)  # close codes


class Broken(Harbour):
    ghosts = 0

    async def leave(self, ship: Ship, code: int) -> None:
        self.ghosts += code not in EXPECTED
        await super().leave(ship, code)

    async def hear(self, ship: Ship, text: str) -> None:
        if self.ghosts:
            self.ghosts -= 1
            raise RuntimeError("nobody is there")
        await super().hear(ship, text)


app = Broken().app
