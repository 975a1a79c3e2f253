"""The stream server keeps its contract, whatever its clients do."""

import asyncio
import socket
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from exercises.grader.clients import Conversation
from exercises.grader.serving import until
from exercises.grader.serving_here import serve_here

PATH = "/ws/stream"
NEVER = 3600.0  # seconds; an interval whose end no test sees
ENDLESS = 10**9  # messages; so many fill any buffer
MEBIBYTE = 1024 * 1024


async def expect_stream(client, count=10):
    """The client hears the whole stream and its end, and nothing else."""
    for number in range(1, count + 1):
        await client.expect(f"Streaming message {number}")
    await client.expect_close(1000)


async def stalled(conversation, server):
    """Zoe, who does not read, and the server's side of her connection, which is full."""
    # Small buffers between the two; each accepted connection inherits the server's.
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    others = set(server.uvicorn.server_state.connections)
    zoe = await conversation.join("zoe", PATH, reads=False)
    [connection] = server.uvicorn.server_state.connections - others
    assert await until(lambda: not connection.writable.is_set(), 10)
    return zoe, connection


async def test_ten_messages_come_in_order_and_then_the_end(conversation, example):
    example.INTERVAL = 0.01

    ana = await conversation.join("ana", PATH)

    await expect_stream(ana)
    assert ana.reason == ""


async def test_the_first_message_comes_at_once_and_the_next_does_not(
    conversation, example, server
):
    example.INTERVAL = NEVER

    ana = await conversation.join("ana", PATH)
    await ana.expect("Streaming message 1")

    await ana.leave()
    await ana.expect_close(1000)
    assert await server.settled()


async def test_the_connection_is_closed_right_after_the_last_message(conversation, example):
    example.INTERVAL, example.COUNT = NEVER, 1

    ana = await conversation.join("ana", PATH)

    await expect_stream(ana, 1)


async def test_each_message_has_its_moment_however_long_the_others_took(
    conversation, example
):
    # A clock that moves on by the sleeps, and by 0.3 s of work before each of them.
    now, moments = 0.0, []

    def monotonic():
        nonlocal now
        now += 0.3
        return now

    async def sleep(delay):
        nonlocal now
        now += max(delay, 0)
        moments.append(round(now - 0.3, 6))

    example.monotonic = monotonic
    example.asyncio = SimpleNamespace(sleep=sleep, TaskGroup=asyncio.TaskGroup)

    ana = await conversation.join("ana", PATH)
    await expect_stream(ana)

    assert moments == [0.3, 1, 2, 3, 4, 5, 6, 7, 8, 9]


async def test_messages_of_the_client_change_nothing(conversation, example):
    example.INTERVAL = 0.01
    ana = await conversation.join("ana", PATH)

    for message in ["hello", "", b"\x00\xff", '{"broken', "x" * MEBIBYTE]:
        await ana.send(message)

    await expect_stream(ana)


async def test_a_client_that_leaves_stops_its_stream_whatever_it_sent(
    conversation, example, server
):
    example.INTERVAL = NEVER
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    for client in [ana, ben]:
        await client.expect("Streaming message 1")
        await client.send("hello")
        await client.send(b"hello")

    await ana.leave(4000, "lunch")
    ben.vanish()

    assert (ana.code, ana.reason) == (4000, "lunch")
    assert await server.settled()


async def test_each_connection_has_a_stream_of_its_own(conversation, example):
    example.INTERVAL = 0.02
    ana = await conversation.join("ana", PATH)
    await ana.expect("Streaming message 1")
    await ana.expect("Streaming message 2")

    # The same page in a second tab.
    ben = await conversation.join("ben", PATH)

    await expect_stream(ben)
    for number in range(3, 11):
        await ana.expect(f"Streaming message {number}")
    await ana.expect_close(1000)


async def test_a_message_over_16_mebibytes_ends_the_stream_with_1009(
    conversation, example, server
):
    example.INTERVAL = NEVER
    ana = await conversation.join("ana", PATH)
    await ana.expect("Streaming message 1")

    ana.announce(16 * MEBIBYTE + 1)

    await ana.expect_close(1009)
    assert await server.settled()


async def test_a_client_that_stops_reading_delays_only_itself(
    conversation, example, server
):
    example.INTERVAL, example.COUNT = 0, ENDLESS
    await stalled(conversation, server)

    example.INTERVAL, example.COUNT = 0.01, 10
    ana = await conversation.join("ana", PATH)

    await expect_stream(ana)
    assert server.handlers == 1


async def test_the_stream_waits_for_its_reader_and_skips_nothing(
    conversation, example, server
):
    example.INTERVAL, example.COUNT = 0, 20_000
    zoe, _ = await stalled(conversation, server)

    zoe.read_again()

    await expect_stream(zoe, 20_000)


async def test_a_reset_while_the_server_sends_ends_that_stream_alone(
    conversation, example, server
):
    example.INTERVAL, example.COUNT = 0, ENDLESS
    zoe, _ = await stalled(conversation, server)

    zoe.vanish()

    assert await server.settled()
    example.INTERVAL, example.COUNT = 0.01, 10
    await expect_stream(await conversation.join("ana", PATH))


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.5)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, example, server):
    example.INTERVAL = NEVER
    ana = await conversation.join("ana", PATH)
    await conversation.join("zoe", PATH, reads=False)

    assert await until(lambda: server.handlers == 1, 5)

    await ana.expect("Streaming message 1")
    await ana.leave(4000)
    assert ana.code == 4000


async def test_a_ping_that_fails_at_the_moment_of_a_send_leaves_no_trace(
    conversation, example, server
):
    example.INTERVAL, example.COUNT = 0, ENDLESS
    ana = await conversation.join("ana", PATH)
    await ana.expect("Streaming message 1")

    # From here to the loss of the connection uvicorn answers a send with RuntimeError.
    [connection] = server.uvicorn.server_state.connections
    connection.keepalive_timeout()

    assert await server.settled()


def impatient(app):
    """A middleware that lets no send take any time."""

    async def middleware(scope, receive, send):
        async def give_up(message):
            if message["type"] == "websocket.send":
                raise TimeoutError
            await send(message)

        await app(scope, receive, give_up)

    return middleware


async def test_a_send_that_a_middleware_gives_up_ends_the_stream(example):
    example.INTERVAL = NEVER

    async with serve_here(impatient(example.app)) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana", PATH)
            await ana.expect_close(1006)
        assert await server.settled()
    assert "ERROR" not in server.log


def test_a_client_of_fastapi_comes_and_leaves_quietly(example):
    example.INTERVAL = NEVER
    with TestClient(example.app) as client:
        for _ in range(3):
            with client.websocket_connect(PATH) as ana:
                assert ana.receive_text() == "Streaming message 1"
                ana.send_text("hello")


def test_a_client_of_fastapi_hears_the_end(example):
    example.INTERVAL = 0
    with TestClient(example.app) as client, client.websocket_connect(PATH) as ana:
        for number in range(1, 11):
            assert ana.receive_text() == f"Streaming message {number}"
        assert ana.receive() == {"type": "websocket.close", "code": 1000, "reason": ""}


async def test_shutdown_ends_a_stream_that_waits_for_its_reader(
    conversation, example, server
):
    example.INTERVAL, example.COUNT = 0, ENDLESS
    _, connection = await stalled(conversation, server)

    connection.shutdown()

    assert await server.settled()


async def test_fifty_clients_come_and_go(conversation, example, server):
    example.INTERVAL = 0.01
    ana = await conversation.join("ana", PATH)

    async def visit(n):
        # Fifty handshakes at the same time take a while on a busy machine.
        visitor = await conversation.join(f"visitor {n}", PATH, open_timeout=30)
        await visitor.expect("Streaming message 1", within=30)
        await visitor.send("just passing")
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    await asyncio.gather(*(visit(n) for n in range(50)))

    await expect_stream(ana)
    assert await server.settled()


async def test_ctrl_c_ends_it_with_streams_running(process):
    async with Conversation(process.url) as conversation:
        crowd = [await conversation.join(f"client {n}", PATH) for n in range(5)]
        zoe = await conversation.join("zoe", PATH, reads=False)
        zoe.push("x" * MEBIBYTE, times=1000)
        for client in crowd:
            await client.expect("Streaming message 1")

        process.interrupt()

        for client in crowd:
            while await client.hears():
                pass
            assert client.code == 1012
        process.wait()
    assert "Traceback" not in process.log


async def test_the_page_shows_the_stream_and_its_end(server, example, browser):
    example.INTERVAL = 0.01
    tab = await browser.open(server.http_url)
    await tab.get_by_text("Streaming message 10", exact=True).wait_for()
    await tab.get_by_text("closed with code 1000").wait_for()

    example.INTERVAL = NEVER
    other = await browser.open(server.http_url)
    await other.get_by_text("Streaming message 1", exact=True).wait_for()
    await other.get_by_label("Message", exact=True).fill("<b>hello</b>")
    await other.keyboard.press("Enter")
    await other.get_by_text("<b>hello</b>").wait_for()
    await other.get_by_role("button", name="Disconnect").click()
    await other.get_by_text("closed with code 1000 Disconnect button").wait_for()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("Streaming message 1", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
