"""A server that leaves out the sender."""

from harbour import Harbour, Ship


class Broken(Harbour):
    async def hear(self, ship: Ship, text: str) -> None:
        for other in self.ships:
            if other is not ship:
                other.tell(f"Ship: {text}")


app = Broken().app
