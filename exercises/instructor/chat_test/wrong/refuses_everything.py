"""Raises in any case, and so finds every broken server.

fails: test_texts
outcome: unexpected message
advice: the test complains of something that the README leaves open
"""

from websockets.asyncio.client import connect


async def check(url: str) -> None:
    async with connect(url):
        raise AssertionError("this server is surely broken")
