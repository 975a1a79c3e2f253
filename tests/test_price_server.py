"""The price server keeps its contract, whatever its clients do."""

import asyncio
import json
import re
import socket
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from exercises.grader.clients import Conversation
from exercises.grader.serving import until

PATH = "/ws/prices"
MEBIBYTE = 1024 * 1024


@pytest.fixture
def example(example):
    """The example with prices that move only when a test calls `feed.tick()`."""
    example.INTERVAL = 3600.0
    return example


@pytest.fixture
def feed(example):
    return example.feed


def producers():
    return [task for task in asyncio.all_tasks() if task.get_coro().__name__ == "produce"]


async def stall(conversation, server, feed, *others):
    """Zoe, who does not read, the server's side of her full connection, and all ticks."""
    # Large ticks, small buffers; each accepted connection inherits the server's.
    feed.prices |= {f"SYMBOL {n}": 100.0 for n in range(1000)}
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    before = set(server.uvicorn.server_state.connections)
    zoe = await conversation.join("zoe", PATH, reads=False)
    [connection] = server.uvicorn.server_state.connections - before
    ticks = [feed.newest]
    while connection.writable.is_set():
        ticks.append(await tick(feed, *others))
    # One more, for the send that waits.
    ticks.append(await tick(feed, *others))
    return zoe, connection, ticks


async def tick(feed, *others):
    """Let the prices move; the others hear of it. Returns the tick."""
    feed.tick()
    expected = feed.newest
    for client in others:
        await client.expect(expected)
    # Whoever is not asked gets the time to send as well.
    await asyncio.sleep(0)
    return expected


async def test_a_tick_is_a_time_in_utc_and_positive_prices(conversation):
    before = datetime.now(UTC)
    ana = await conversation.join("ana", PATH)

    heard = await ana.receive()

    assert heard.keys() == {"timestamp", "prices"}
    moment = datetime.fromisoformat(heard["timestamp"])
    assert moment.utcoffset() == timedelta(0)
    assert before <= moment <= datetime.now(UTC)
    assert len(heard["prices"]) > 1
    assert all(price > 0 for price in heard["prices"].values())


async def test_the_current_prices_come_at_once_to_each_who_joins(conversation):
    ana = await conversation.join("ana", PATH)
    current = await ana.receive()

    ben = await conversation.join("ben", PATH)

    await ben.expect(current)


async def test_new_prices_follow_each_interval(conversation, example):
    example.INTERVAL = 0.01
    ana = await conversation.join("ana", PATH)

    heard = [await ana.receive() for _ in range(5)]

    moments = [datetime.fromisoformat(tick["timestamp"]) for tick in heard]
    for earlier, later in pairwise(moments):
        assert later - earlier >= timedelta(milliseconds=9)
    assert heard[0]["prices"] != heard[4]["prices"]


async def test_prices_stay_positive_however_long_they_move(feed):
    feed.prices = {"PENNY": 0.01, "DIME": 0.1}

    for _ in range(1000):
        feed.tick()
        assert min(feed.prices.values()) > 0


async def test_one_producer_serves_fifty_clients(conversation, feed):
    crowd = [await conversation.join(f"client {n}", PATH) for n in range(50)]
    first = feed.newest

    feed.tick()

    for client in crowd:
        await client.expect(first)
        await client.expect(feed.newest)
    assert len(producers()) == 1
    assert feed.listeners == 50


async def test_nothing_is_produced_while_nobody_listens(conversation, feed, server):
    assert producers() == []
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    old = await ana.receive()

    await ana.leave()
    assert await until(lambda: feed.listeners == 1, 5)
    assert len(producers()) == 1
    ben.vanish()
    assert await server.settled()
    assert await until(lambda: producers() == [], 5)

    zoe = await conversation.join("zoe", PATH)
    assert (await zoe.receive())["timestamp"] > old["timestamp"]
    assert len(producers()) == 1


async def test_leaving_and_joining_in_one_breath_keeps_one_producer(conversation, feed):
    ana = await conversation.join("ana", PATH)
    await ana.receive()

    feed.leave()
    feed.join()

    await ana.expect(feed.newest)
    assert await until(lambda: len(producers()) == 1, 5)


async def test_messages_of_a_client_change_nothing(conversation, feed):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    current = await ana.receive()
    await ben.expect(current)

    for message in ["hello", "", b"\x00\xff", '{"broken', "x" * MEBIBYTE]:
        await ana.send(message)

    for _ in range(3):
        await tick(feed, ana, ben)


async def test_a_client_that_leaves_is_forgotten_whatever_it_sent(
    conversation, feed, server
):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    for client in [ana, ben]:
        await client.receive()
        await client.send("hello")
        await client.send(b"hello")

    await ana.leave(4000, "lunch")
    ben.vanish()

    assert (ana.code, ana.reason) == (4000, "lunch")
    assert await server.settled()
    assert feed.listeners == 0


async def test_a_message_over_16_mebibytes_closes_its_sender_alone(conversation, feed):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    current = await ana.receive()
    await ben.expect(current)

    ana.announce(16 * MEBIBYTE + 1)

    await ana.expect_close(1009)
    await tick(feed, ben)


async def test_two_tabs_are_two_listeners(conversation, feed):
    first = await conversation.join("ana", PATH)
    second = await conversation.join("ana", PATH)
    await second.expect(await first.receive())

    await first.leave()

    assert await until(lambda: feed.listeners == 1, 5)
    await tick(feed, second)


async def test_a_slow_reader_gets_the_newest_prices_and_never_a_backlog(
    conversation, feed, server
):
    ana = await conversation.join("ana", PATH)
    await ana.receive()
    zoe, _, before = await stall(conversation, server, feed, ana)

    meanwhile = [await tick(feed, ana) for _ in range(100)]
    zoe.read_again()

    # What the sockets and one waiting send had taken in, and then the newest.
    newest, heard = json.loads(meanwhile[-1]), [await zoe.receive()]
    while heard[-1] != newest:
        heard.append(await zoe.receive())
    assert heard[:-1] == [json.loads(tick) for tick in before[: len(heard) - 1]]
    await tick(feed, ana, zoe)


async def test_a_reset_while_the_server_sends_drops_nobody_else(conversation, feed, server):
    ana = await conversation.join("ana", PATH)
    await ana.receive()
    zoe, _, _ = await stall(conversation, server, feed, ana)

    zoe.vanish()

    assert await until(lambda: feed.listeners == 1, 5)
    await tick(feed, ana)


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.5)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, feed):
    ana = await conversation.join("ana", PATH)
    await conversation.join("zoe", PATH, reads=False)
    await ana.receive()

    assert await until(lambda: feed.listeners == 1, 5)

    await tick(feed, ana)


async def test_a_ping_that_fails_before_a_send_leaves_no_trace(conversation, feed, server):
    ana = await conversation.join("ana", PATH)
    await ana.receive()

    # From here to the loss of the connection uvicorn answers a send with RuntimeError.
    [connection] = server.uvicorn.server_state.connections
    feed.tick()
    connection.keepalive_timeout()

    assert await server.settled()
    assert feed.listeners == 0


async def test_shutdown_ends_a_send_that_waits_for_its_reader(conversation, feed, server):
    _, connection, _ = await stall(conversation, server, feed)

    connection.shutdown()

    assert await server.settled()


async def test_fifty_clients_come_and_go_while_prices_move(conversation, example, server):
    example.INTERVAL = 0.001
    ana = await conversation.join("ana", PATH)

    async def visit(n):
        # Fifty handshakes at the same time take a while on a busy machine.
        visitor = await conversation.join(f"visitor {n}", PATH, open_timeout=30)
        await visitor.receive(within=30)
        await visitor.send("just passing")
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    await asyncio.gather(*(visit(n) for n in range(50)))

    assert await until(lambda: example.feed.listeners == 1, 5)
    assert len(producers()) == 1
    await ana.receive()
    await ana.leave()
    assert await server.settled()
    assert example.feed.listeners == 0


async def test_ctrl_c_ends_it_while_prices_move(process):
    async with Conversation(process.url) as conversation:
        crowd = [await conversation.join(f"client {n}", PATH) for n in range(5)]
        await conversation.join("zoe", PATH, reads=False)
        for client in crowd:
            await client.receive()
            await client.receive()

        process.interrupt()

        for client in crowd:
            while await client.hears():
                pass
            assert client.code == 1012
        process.wait()
    assert "Traceback" not in process.log


async def test_the_page_draws_the_prices_in_two_tabs(server, feed, browser):
    feed.prices = {"<b>GOLD</b>": 100.0}
    tab, other = await browser.open(server.http_url), await browser.open(server.http_url)
    await tab.get_by_role("img", name=re.compile(", last 1 values: ")).wait_for()
    await other.get_by_text("connected", exact=True).wait_for()

    for _ in range(70):
        await tick(feed)

    last = f"{feed.prices['<b>GOLD</b>']:.2f}"
    for page in [tab, other]:
        await page.get_by_role("rowheader", name="<b>GOLD</b>").wait_for()
        await page.get_by_role("cell", name=last, exact=True).wait_for()
    await tab.get_by_role("img", name=re.compile(", last 60 values: ")).wait_for()
    points = await tab.locator("polyline").get_attribute("points")
    assert len(points.split()) == 60
    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_text("closed with code 1000 Disconnect button").wait_for()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_role("img", name=re.compile("^COCOA, last 2 values")).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
