"""Ends the process with an exit code, as a script for the command line would.

fails: test_texts
outcome: program crashed
advice: raise an exception where a server is wrong, and return where it is right
"""

import sys

from websockets.asyncio.client import connect


async def check(url: str) -> None:
    async with connect(url) as ship:
        await ship.send("ahoy")
        sys.exit(0 if await ship.recv() == "Ship: ahoy" else 1)
