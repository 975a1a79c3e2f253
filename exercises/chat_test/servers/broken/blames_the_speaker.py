"""A server that throws out the speaker when another ship does not read."""

from harbour import Harbour, Ship


class Broken(Harbour):
    async def hear(self, ship: Ship, text: str) -> None:
        # A queue that is full raises, here, in the handler of whoever speaks.
        for other in self.ships:
            other.waiting.put_nowait(f"Ship: {text}")


app = Broken().app
