"""The price server keeps its contract, whatever its clients do."""

import asyncio
import json
import re
import socket
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from exercises.grader.clients import Conversation
from exercises.grader.serving import ServerProcess, until
from exercises.grader.serving_here import serve_here

EXAMPLE = Path(__file__).parent.parent / "examples" / "price_server.py"
PATH = "/ws/prices"
MEBIBYTE = 1024 * 1024
PATIENCE = 20.0  # seconds to wait for what may take a while on a busy machine


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


async def test_a_time_has_its_microseconds_on_the_whole_second_too(
    feed, example, monkeypatch
):
    class Noon(datetime):
        @classmethod
        def now(cls, zone):
            return cls(2026, 1, 31, 12, tzinfo=zone)

    monkeypatch.setattr(example, "datetime", Noon)

    feed.tick()

    assert json.loads(feed.newest)["timestamp"] == "2026-01-31T12:00:00.000000Z"


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
    assert len(feed.listeners) == 50


async def test_nothing_is_produced_while_nobody_listens(conversation, feed, server):
    assert producers() == []
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    old = await ana.receive()

    await ana.leave()
    assert await until(lambda: len(feed.listeners) == 1, 5)
    assert len(producers()) == 1
    ben.vanish()
    assert await server.settled()
    assert await until(lambda: producers() == [], 5)

    zoe = await conversation.join("zoe", PATH)
    assert (await zoe.receive())["timestamp"] > old["timestamp"]
    assert len(producers()) == 1


async def test_leaving_and_joining_in_one_breath_keeps_one_producer(feed):
    first, second = asyncio.Event(), asyncio.Event()
    feed.join(first)
    feed.leave(first)

    producer = feed.join(second)

    assert await until(lambda: producers() == [producer], 5)
    feed.leave(second)
    assert await until(lambda: producers() == [], 5)


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
    assert feed.listeners == set()


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

    assert await until(lambda: len(feed.listeners) == 1, 5)
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

    assert await until(lambda: len(feed.listeners) == 1, 5)
    await tick(feed, ana)


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.5)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, feed):
    ana = await conversation.join("ana", PATH)
    await conversation.join("zoe", PATH, reads=False)
    await ana.receive()

    assert await until(lambda: len(feed.listeners) == 1, 5)

    await tick(feed, ana)


async def test_a_ping_that_fails_before_a_send_leaves_no_trace(conversation, feed, server):
    ana = await conversation.join("ana", PATH)
    await ana.receive()

    # From here to the loss of the connection uvicorn answers a send with RuntimeError.
    [connection] = server.uvicorn.server_state.connections
    feed.tick()
    connection.keepalive_timeout()

    assert await server.settled()
    assert feed.listeners == set()


async def test_a_producer_that_fails_ends_all_connections_and_is_logged(
    conversation, feed, example, server
):
    example.INTERVAL = 0.01
    crowd = [await conversation.join(f"client {n}", PATH) for n in range(3)]

    feed.prices = {"COCOA": None}

    for client in crowd:
        while await client.hears():
            pass
        assert (client.code, client.reason) == (1011, "there are no more prices")
    assert server.log.count("ERROR: there are no more prices") == 1
    assert "TypeError" in server.log
    server.lines.clear()
    assert await server.settled()
    feed.prices = {"COCOA": 8.25}
    late = await conversation.join("late", PATH)
    await late.receive()
    await late.receive()


async def test_one_who_joins_after_the_failure_gets_a_new_producer(
    conversation, feed, example
):
    ana = await conversation.join("ana", PATH)
    await ana.receive()
    old, stalled = feed.producer, asyncio.Event()
    feed.listeners.add(stalled)  # one whose connection takes a while to close
    old.cancel()
    await ana.expect_close(1011)

    ben = await conversation.join("ben", PATH)

    await ben.receive()
    assert feed.producer is not old
    await tick(feed, ben)
    feed.leave(stalled)


def impatient(app):
    """A middleware that lets no send take any time."""

    async def middleware(scope, receive, send):
        async def give_up(message):
            if message["type"] == "websocket.send":
                raise TimeoutError
            await send(message)

        await app(scope, receive, give_up)

    return middleware


async def test_a_send_that_a_middleware_gives_up_ends_the_connection(example, feed):
    async with serve_here(impatient(example.app)) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana", PATH)
            await ana.expect_close(1006)
        assert await server.settled()
    assert "ERROR" not in server.log
    assert feed.listeners == set()


def test_a_client_of_fastapi_comes_and_leaves_quietly(example):
    with TestClient(example.app) as client:
        for _ in range(3):
            with client.websocket_connect(PATH) as ana:
                assert "prices" in ana.receive_json()
                ana.send_text("hello")


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

    assert await until(lambda: len(example.feed.listeners) == 1, 5)
    assert len(producers()) == 1
    await ana.receive()
    await ana.leave()
    assert await server.settled()
    assert example.feed.listeners == set()


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


@pytest.mark.parametrize("reload", [[], ["--reload"]], ids=["alone", "with --reload"])
async def test_ctrl_c_ends_it_while_a_client_floods_and_does_not_read(reload):
    options = ["--timeout-graceful-shutdown=1", *reload]
    with ServerProcess(EXAMPLE, options=options) as process:
        assert await until(lambda: "startup complete" in process.log, PATIENCE)
        async with Conversation(process.url) as conversation:
            zoe = await conversation.join("zoe", PATH, reads=False)
            ana = await conversation.join("ana", PATH)
            pushing = zoe.push("x" * MEBIBYTE, times=1000)
            await ana.receive()
            await ana.receive()
            assert not pushing.done()

            process.interrupt()

            await asyncio.to_thread(process.wait)
            while await ana.hears():
                pass
            assert ana.code == 1012


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
