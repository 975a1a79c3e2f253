"""A server that falls over a binary message and closes with 1011."""

from harbour import Harbour, Ship


class Broken(Harbour):
    async def hear_binary(self, ship: Ship) -> bool:
        raise KeyError("text")


app = Broken().app
