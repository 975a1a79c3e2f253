"""A server that sends to one ship after the other, and waits for each."""

from contextlib import suppress

from harbour import Harbour, Ship
from starlette.websockets import WebSocketDisconnect


class Broken(Harbour):
    async def hear(self, ship: Ship, text: str) -> None:
        for other in list(self.ships):
            with suppress(WebSocketDisconnect, RuntimeError):
                await other.websocket.send_text(f"Ship: {text}")


app = Broken().app
