"""The echo server keeps its contract, whatever its clients do."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from exercises.grader.clients import Conversation
from exercises.grader.serving import ServerProcess, until

EXAMPLE = Path(__file__).parent.parent / "examples" / "echo_server.py"
PATH = "/ws/echo"
MEBIBYTE = 1024 * 1024
PATIENCE = 20.0  # seconds to wait for what may take a while on a busy machine


async def test_each_text_comes_back_in_order(conversation):
    ana = await conversation.join("ana", PATH)
    texts = ["hello", "", "žluťoučký kůň 🐎", "\x00", "hello"]

    for text in texts:
        await ana.send(text)

    for text in texts:
        await ana.expect(f"Echo: {text}")


async def test_two_clients_hear_only_their_own(conversation):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    await ana.send("from ana")
    await ben.send("from ben")

    await ben.expect("Echo: from ben")
    await ana.expect("Echo: from ana")


async def test_a_binary_message_is_closed_with_1003(conversation):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    await ana.send(b"hello")

    await ana.expect_close(1003, "text messages only")
    await ben.send("still here")
    await ben.expect("Echo: still here")


async def test_a_polite_leave_is_answered_with_its_own_code(conversation):
    ana = await conversation.join("ana", PATH)

    await ana.leave(4000, "lunch")

    assert (ana.code, ana.reason) == (4000, "lunch")


async def test_a_cut_line_leaves_the_others_alone(conversation, server):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    await ana.send("anybody there?")
    ana.vanish()

    await ben.send("yes")
    await ben.expect("Echo: yes")
    await ben.leave()
    assert await server.settled()


async def test_a_message_of_one_mebibyte_comes_back_whole(conversation):
    ana = await conversation.join("ana", PATH)

    await ana.send("x" * MEBIBYTE)

    await ana.expect("Echo: " + "x" * MEBIBYTE)


async def test_a_message_over_16_mebibytes_is_closed_with_1009(conversation):
    ana = await conversation.join("ana", PATH)

    ana.announce(16 * MEBIBYTE + 1)

    await ana.expect_close(1009)


async def test_a_client_that_stops_reading_delays_only_itself(conversation, server):
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    # Several times what the sockets between zoe and the server can hold.
    pushing = zoe.push("x" * MEBIBYTE, times=32)
    await ana.send("hello")

    await ana.expect("Echo: hello")
    assert not pushing.done()


async def test_a_ping_that_fails_before_an_answer_leaves_no_trace(conversation, server):
    await conversation.join("ana", PATH)
    [connection] = server.uvicorn.server_state.connections

    # As it is after a failed ping, while older messages still have to be written: until
    # they are, uvicorn answers a send with RuntimeError.
    connection.close_sent = True
    connection.queue.put_nowait({"type": "websocket.receive", "text": "hello"})

    assert await server.settled()


def test_a_client_of_fastapi_comes_and_leaves_quietly(example):
    with TestClient(example.app) as client:
        for _ in range(3):
            with client.websocket_connect(PATH) as ana:
                ana.send_text("hello")
                assert ana.receive_text() == "Echo: hello"


async def test_fifty_clients_come_and_go(conversation, server):
    crowd = [await conversation.join(f"client {n}", PATH) for n in range(50)]

    for n, client in enumerate(crowd):
        await client.send(str(n))

    for n, client in enumerate(crowd):
        await client.expect(f"Echo: {n}")
        if n % 2:
            client.vanish()
        else:
            await client.leave()
    assert await server.settled()


async def test_ctrl_c_ends_it_with_connections_open(process):
    async with Conversation(process.url) as conversation:
        ana = await conversation.join("ana", PATH)
        await ana.send("hello")
        await ana.expect("Echo: hello")

        process.interrupt()

        await ana.expect_close(1012)
        process.wait()
    assert "Traceback" not in process.log


def accepts(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


@pytest.mark.parametrize("reload", [[], ["--reload"]], ids=["alone", "with --reload"])
async def test_ctrl_c_ends_it_while_a_client_floods_and_does_not_read(reload):
    options = ["--timeout-graceful-shutdown=1", *reload]
    with ServerProcess(EXAMPLE, options=options) as process:
        # With --reload, the log says so before the server listens.
        assert await until(lambda: accepts(process.port), PATIENCE)
        async with Conversation(process.url) as conversation:
            zoe = await conversation.join("zoe", PATH, reads=False)
            ana = await conversation.join("ana", PATH)
            pushing = zoe.push("x" * MEBIBYTE, times=1000)
            for _ in range(100):
                await ana.send("hello")
                await ana.expect("Echo: hello")
            assert not pushing.done()

            process.interrupt()

            await asyncio.to_thread(process.wait)
            await ana.expect_close(1012)


async def test_the_page_shows_the_conversation_and_its_end(server, browser):
    tab = await browser.open(server.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    await tab.get_by_label("Message", exact=True).fill("<b>hello</b>")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("Echo: <b>hello</b>").wait_for()

    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_text("closed with code 1000 Disconnect button").wait_for()
    await tab.get_by_role("button", name="Connect", exact=True).click()
    await tab.get_by_text("connected", exact=True).wait_for()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
