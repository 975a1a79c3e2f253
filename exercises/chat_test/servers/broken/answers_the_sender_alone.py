"""A server that answers the sender and tells nobody else."""

from harbour import Harbour, Ship


class Broken(Harbour):
    async def hear(self, ship: Ship, text: str) -> None:
        ship.tell(f"Ship: {text}")


app = Broken().app
