"""A server that reaches two ships and no third."""

from harbour import Harbour, Ship


class Broken(Harbour):
    async def hear(self, ship: Ship, text: str) -> None:
        for other in self.ships[:2]:
            other.tell(f"Ship: {text}")


app = Broken().app
