"""A test that tells a good chat server from a bad one: one possible solution."""

import asyncio

from websockets.asyncio.client import ClientConnection, connect

URL = "ws://127.0.0.1:8000/ws/harbour"
PATIENCE = 0.9  # seconds
LEFT = "A ship left"
LONG, MANY = 64 * 1024, 200  # more than the systems keep for a ship that does not read


async def join(url: str) -> ClientConnection:
    # Compressed, long texts would be short.
    return await connect(url, compression=None, close_timeout=PATIENCE)


async def hear(ship: ClientConnection) -> str | bytes:
    async with asyncio.timeout(PATIENCE):
        return await ship.recv()


async def expect(ships: list[ClientConnection], *texts: str) -> None:
    """All these ships hear these texts, and nothing before or between them."""
    for ship in ships:
        for text in texts:
            heard = await hear(ship)
            assert heard == text, f"{heard[:50]!r} came instead of {text[:50]!r}"


async def say(ships: list[ClientConnection], *texts: str) -> None:
    """Each ship says these texts in a row, and all hear them."""
    for ship in ships:
        for text in texts:
            await ship.send(text)
        await expect(ships, *(f"Ship: {text}" for text in texts))


async def check_talk(url: str) -> None:
    ships = [await join(url) for _ in range(4)]
    await say(ships, "ahoy", "fog", "", "two knots")
    # A second message of the same kind would come in place of what is said afterwards.
    await ships.pop().close()
    await expect(ships, LEFT)
    await say(ships, "who was that")

    offender = ships.pop()
    await offender.send(b"\x00\x01")
    async with asyncio.timeout(PATIENCE):
        await offender.wait_closed()
    assert offender.close_code == 1003, f"binary is closed with {offender.close_code}"
    await expect(ships, LEFT)
    await say(ships, "still here")

    unlucky = await join(url)
    await say([*ships, unlucky], "welcome")
    unlucky.transport.abort()
    await expect(ships, LEFT)
    await say(ships, "poor thing", "indeed")
    for ship in ships:
        await ship.close()


async def check_slow_ship(url: str) -> None:
    ana, ben, slow = [await join(url) for _ in range(3)]
    for number in range(MANY):
        text = f"{number} ".ljust(LONG, ".")
        await ana.send(text)
        for ship in [ana, ben]:
            heard = await hear(ship)
            if heard == LEFT:  # The server may drop the slow ship.
                heard = await hear(ship)
            assert heard == f"Ship: {text}", f"{heard[:50]!r} is not what was said"
    for ship in [slow, ana, ben]:
        ship.transport.abort()


async def check(url: str) -> None:
    await check_talk(url)
    await check_slow_ship(url)


if __name__ == "__main__":
    asyncio.run(check(URL))
    print("This server is right.")
