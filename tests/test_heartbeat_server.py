"""The heartbeat server keeps its contract, whatever its clients do."""

import asyncio
import random
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from exercises.grader.clients import Conversation
from exercises.grader.serving import ServerProcess, until
from exercises.grader.serving_here import serve_here

EXAMPLE = Path(__file__).parent.parent / "examples" / "heartbeat_server.py"
PATH = "/ws"
LARGE = random.Random(13).randbytes(32 * 1024).hex()  # 64 KiB that deflate cannot shrink
MEBIBYTE = 1024 * 1024
PATIENCE = 20.0  # seconds to wait for what may take a while on a busy machine


async def test_ping_is_answered_with_pong_and_the_rest_with_what_was_sent(conversation):
    ana = await conversation.join("ana", PATH)
    texts = ["ping", "hello", "", "Ping", "ping ", "žluťoučký kůň 🐎", "\x00"]

    for text in texts:
        await ana.send(text)

    await ana.expect("pong")
    for text in texts[1:]:
        await ana.expect(f"You sent: {text}")


async def test_two_clients_hear_only_their_own(conversation):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    await ana.send("ping")
    await ben.send("from ben")

    await ben.expect("You sent: from ben")
    await ana.expect("pong")


async def test_a_client_may_be_silent_for_a_minute(example):
    assert example.IDLE_TIMEOUT == 60.0


async def test_a_client_that_falls_silent_is_closed_with_1000(
    conversation, example, server
):
    example.IDLE_TIMEOUT = 0.1
    ana = await conversation.join("ana", PATH)

    await ana.expect_close(1000, "Session timeout")
    assert await server.settled()


async def test_each_message_starts_the_time_again(conversation, example):
    example.IDLE_TIMEOUT = 1.0
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH)

    while zoe.code is None:
        await ana.send("hello")
        await ana.expect("You sent: hello")

    await zoe.expect_close(1000, "Session timeout")
    await ana.send("ping")
    await ana.expect("pong")


async def test_pings_of_the_protocol_are_no_messages(conversation, example):
    example.IDLE_TIMEOUT = 0.3
    ana = await conversation.join("ana", PATH, ping_interval=0.05)

    await ana.expect_close(1000, "Session timeout")


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.5)
async def test_a_peer_that_vanished_without_a_word_is_found_by_pings(conversation, server):
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    assert await until(lambda: server.handlers == 1, 5.0)
    zoe.read_again()
    await zoe.expect_close(1011, "keepalive ping timeout")
    await ana.send("still here")
    await ana.expect("You sent: still here")


async def test_a_client_that_sends_and_never_reads_is_dropped(
    conversation, example, server
):
    example.IDLE_TIMEOUT = 0.3
    example.CLOSE_TIMEOUT = 0.1
    zoe = await conversation.join("zoe", PATH, reads=False)

    pushing = zoe.push(LARGE, times=400)

    assert await server.settled()
    assert not pushing.done()


async def test_a_client_that_stops_reading_delays_only_itself(conversation):
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    pushing = zoe.push(LARGE, times=400)
    for n in range(200):
        await ana.send(str(n))

    for n in range(200):
        await ana.expect(f"You sent: {n}")
    assert not pushing.done()


async def test_a_reset_while_the_server_sends_hurts_nobody(conversation, server):
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)
    zoe.push(LARGE, times=400)
    connections = server.uvicorn.server_state.connections
    assert await until(lambda: not all(c.writable.is_set() for c in connections), 5.0)

    zoe.vanish()

    assert await until(lambda: server.handlers == 1, 5.0)
    await ana.send("ping")
    await ana.expect("pong")


async def test_a_ping_that_fails_before_an_answer_leaves_no_trace(conversation, server):
    await conversation.join("ana", PATH)
    [connection] = server.uvicorn.server_state.connections

    # As it is after a failed ping, while older messages still have to be written: until
    # they are, uvicorn answers a send with RuntimeError.
    connection.close_sent = True
    connection.queue.put_nowait({"type": "websocket.receive", "text": "hello"})

    assert await server.settled()


async def test_messages_that_arrive_together_leave_the_others_a_turn(example):
    answered = []

    async def receive():
        return next(messages)

    async def send(message):
        answered.append(message)

    messages = iter(
        [
            {"type": "websocket.connect"},
            *[{"type": "websocket.receive", "text": "hello"}] * 1000,
            {"type": "websocket.disconnect", "code": 1005},
        ]
    )
    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": []}
    connection = asyncio.create_task(example.app(scope, receive, send))

    turns = 0
    while not connection.done():
        await asyncio.sleep(0)
        turns += 1

    assert turns > 1000
    assert len(answered) == 1001  # with the one that accepts


def impatient(app):
    """A middleware that lets no send take any time."""

    async def middleware(scope, receive, send):
        async def give_up(message):
            if message["type"] == "websocket.send":
                raise TimeoutError
            await send(message)

        await app(scope, receive, give_up)

    return middleware


async def test_a_send_that_a_middleware_gives_up_ends_the_connection(example):
    async with serve_here(impatient(example.app)) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana", PATH)
            await ana.send("hello")
            await ana.expect_close(1006)
        assert await server.settled()
    assert "ERROR" not in server.log


def test_a_client_of_fastapi_comes_and_leaves_quietly(example):
    with TestClient(example.app) as client:
        for _ in range(3):
            with client.websocket_connect(PATH) as ana:
                ana.send_text("ping")
                assert ana.receive_text() == "pong"


async def test_a_binary_message_is_closed_with_1003(conversation):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    await ana.send(b"ping")

    await ana.expect_close(1003, "text messages only")
    await ben.send("ping")
    await ben.expect("pong")


async def test_a_polite_leave_is_answered_with_its_own_code(conversation, server):
    ana = await conversation.join("ana", PATH)

    await ana.leave(4000, "lunch")

    assert (ana.code, ana.reason) == (4000, "lunch")
    assert await server.settled()


async def test_a_cut_line_leaves_the_others_alone(conversation, server):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    await ana.send("ping")
    ana.vanish()

    await ben.send("ping")
    await ben.expect("pong")
    await ben.leave()
    assert await server.settled()


async def test_a_message_of_one_mebibyte_is_answered_whole(conversation):
    ana = await conversation.join("ana", PATH)

    await ana.send("x" * MEBIBYTE)

    await ana.expect("You sent: " + "x" * MEBIBYTE)


async def test_a_message_over_16_mebibytes_is_closed_with_1009(conversation):
    ana = await conversation.join("ana", PATH)

    ana.announce(16 * MEBIBYTE + 1)

    await ana.expect_close(1009)


async def test_fifty_clients_come_and_go_while_one_talks(conversation, server):
    ana = await conversation.join("ana", PATH)

    async def visit(n):
        visitor = await conversation.join(f"visitor {n}", PATH)
        await visitor.send("ping")
        await visitor.expect("pong")
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    visits = [asyncio.create_task(visit(n)) for n in range(50)]
    for n in range(100):
        await ana.send(str(n))
    await asyncio.gather(*visits)

    for n in range(100):
        await ana.expect(f"You sent: {n}")
    assert await until(lambda: server.handlers == 1, 5.0)


async def test_ctrl_c_ends_it_with_connections_open(process):
    async with Conversation(process.url) as conversation:
        silent = [await conversation.join(f"client {n}", PATH) for n in range(5)]
        ana = await conversation.join("ana", PATH)
        await ana.send("ping")
        await ana.expect("pong")
        ana.push("hello", times=1000)

        process.interrupt()

        process.wait()
        for client in silent:
            await client.expect_close(1012)
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
            for _ in range(100):
                await ana.send("ping")
                await ana.expect("pong")
            assert not pushing.done()

            process.interrupt()

            await asyncio.to_thread(process.wait)
            await ana.expect_close(1012)


async def test_two_tabs_show_their_own_conversation(server, browser):
    tab = await browser.open(server.http_url)
    other = await browser.open(server.http_url)
    await other.get_by_text("connected", exact=True).wait_for()

    await tab.get_by_label("Message", exact=True).fill("<b>hello</b>")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("You sent: <b>hello</b>").wait_for()
    await other.get_by_role("button", name="Send", exact=True).click()
    await other.get_by_text("pong", exact=True).last.wait_for()

    assert await other.get_by_text("hello").count() == 0
    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_text("closed with code 1000 Disconnect button").wait_for()
    await tab.get_by_role("button", name="Connect", exact=True).click()
    await tab.get_by_text("connected", exact=True).wait_for()


async def test_the_page_sends_pings_when_it_is_told_to(server, browser):
    tab = await browser.open(server.http_url)
    await tab.clock.install()
    await tab.reload()
    await tab.get_by_text("connected", exact=True).wait_for()

    await tab.get_by_label("Send a ping each 20 seconds").check()
    await tab.clock.run_for(25_000)

    await tab.get_by_role("list").get_by_text("pong", exact=True).wait_for()


async def test_the_page_shows_that_its_session_timed_out(server, browser, example):
    example.IDLE_TIMEOUT = 0.3
    tab = await browser.open(server.http_url)

    await tab.get_by_text("closed with code 1000 Session timeout").wait_for()
    await tab.get_by_text("not connected").wait_for()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
