"""A server that passes texts on without "Ship: " before them."""

from harbour import Harbour, Ship


class Broken(Harbour):
    async def hear(self, ship: Ship, text: str) -> None:
        await self.tell(text)


app = Broken().app
