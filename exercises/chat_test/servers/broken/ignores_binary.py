"""A server that ignores binary messages."""

from harbour import Harbour, Ship


class Broken(Harbour):
    async def hear_binary(self, ship: Ship) -> bool:
        return True


app = Broken().app
