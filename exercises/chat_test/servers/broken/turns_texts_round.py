"""A server that mixes up texts that follow each other quickly."""

import asyncio
from typing import ClassVar

from harbour import Harbour, Ship

PAUSE = 0.01  # seconds in which texts are collected


class Broken(Harbour):
    texts: ClassVar[list[str]] = []

    async def hear(self, ship: Ship, text: str) -> None:
        self.texts.append(text)
        asyncio.get_running_loop().call_later(PAUSE, self.flush)

    def flush(self) -> None:
        # The last one first.
        while self.texts:
            text = self.texts.pop()
            for ship in self.ships:
                ship.tell(f"Ship: {text}")


app = Broken().app
