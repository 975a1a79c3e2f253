"""A server that sends to all ships at once, and waits until the last one has it."""

import asyncio

from harbour import Harbour, Ship


class Broken(Harbour):
    async def hear(self, ship: Ship, text: str) -> None:
        sends = [other.websocket.send_text(f"Ship: {text}") for other in self.ships]
        await asyncio.gather(*sends, return_exceptions=True)


app = Broken().app
