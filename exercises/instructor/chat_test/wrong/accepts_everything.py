"""Looks whether the server answers at all, as a health check does.

fails: test_texts
outcome: unexpected message
advice: compare each one that comes
"""

from websockets.asyncio.client import connect


async def check(url: str) -> None:
    async with connect(url) as ship:
        await ship.send("ahoy")
        await ship.recv()
