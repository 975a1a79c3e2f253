"""The route server keeps its contract on every path, whatever its clients do."""

import asyncio
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from exercises.grader.clients import Conversation
from exercises.grader.serving import ServerProcess

EXAMPLE = Path(__file__).parent.parent / "examples" / "route_server.py"
MEBIBYTE = 1024 * 1024
# Each path, what it says on opening, and how each answer begins.
ROUTES = {
    "/ws": (None, "Message received: "),
    "/ws/ana": ("Connected to client: ana", "Client ana sent: "),
    "/channels/7/ws": (None, "Channel 7 received: "),
    "/chat/ws": (None, "You sent: "),
}


async def join(conversation, path, name="ana", **options):
    """Connect, and take the greeting if there is one."""
    client = await conversation.join(name, path, **options)
    if greeting := ROUTES[path][0]:
        await client.expect(greeting)
    return client


@pytest.mark.parametrize("path", ROUTES)
async def test_each_path_has_an_answer_of_its_own(conversation, path):
    ana = await join(conversation, path)
    texts = ["hello", "", "žluťoučký kůň 🐎", "\x00", "hello"]

    for text in texts:
        await ana.send(text)

    for text in texts:
        await ana.expect(ROUTES[path][1] + text)


@pytest.mark.parametrize(
    ("encoded", "client_id"),
    [("42", "42"), ("a%20b", "a b"), ("a%0Ab", "a\nb"), ("%C5%BE", "ž"), ("ws", "ws")],
)
async def test_a_client_id_may_be_any_text_without_a_slash(
    conversation, encoded, client_id
):
    ana = await conversation.join("ana", f"/ws/{encoded}")

    await ana.expect(f"Connected to client: {client_id}")
    await ana.send("hello")
    await ana.expect(f"Client {client_id} sent: hello")


async def test_a_client_id_has_at_most_64_characters(conversation):
    longest = "%C5%BE" * 64

    ana = await conversation.join("ana", f"/ws/{longest}")

    await ana.expect("Connected to client: " + "ž" * 64)
    await conversation.expect_refusal("ana", f"/ws/{longest}z", 403)


@pytest.mark.parametrize("number", [0, -1, 7, 10**400])
async def test_a_channel_may_be_any_integer(conversation, number):
    ana = await conversation.join("ana", f"/channels/{number}/ws")

    await ana.send("hello")

    await ana.expect(f"Channel {number} received: hello")


@pytest.mark.parametrize("number", ["seven", "7.5", "1e3", "%20", "9" * 5000])
async def test_a_channel_that_is_no_integer_is_refused(conversation, number):
    await conversation.expect_refusal("ana", f"/channels/{number}/ws", 403)


@pytest.mark.parametrize(
    "path", ["/", "/chat", "/ws/", "/ws/ana/", "/ws/a%2Fb", "/channels//ws", "/chats/ws"]
)
async def test_a_path_that_no_route_matches_is_refused(conversation, path):
    await conversation.expect_refusal("ana", path, 403)


async def test_clients_of_different_paths_hear_only_their_own(conversation):
    clients = {path: await join(conversation, path, path) for path in ROUTES}

    for path, client in clients.items():
        await client.send(f"from {path}")

    for path, client in clients.items():
        await client.expect(f"{ROUTES[path][1]}from {path}")


@pytest.mark.parametrize("path", ROUTES)
async def test_a_binary_message_is_closed_with_1003(conversation, path):
    ana = await join(conversation, path)
    ben = await join(conversation, path, "ben")

    await ana.send(b"hello")

    await ana.expect_close(1003, "text messages only")
    await ben.send("still here")
    await ben.expect(ROUTES[path][1] + "still here")


@pytest.mark.parametrize("path", ROUTES)
async def test_a_polite_leave_and_a_cut_line_leave_nothing_behind(
    conversation, server, path
):
    ana = await join(conversation, path)
    ben = await join(conversation, path, "ben")

    await ana.leave(4000, "lunch")
    await ben.send("anybody there?")
    ben.vanish()

    assert (ana.code, ana.reason) == (4000, "lunch")
    assert await server.settled()


async def test_a_line_that_is_cut_before_the_greeting_leaves_the_log_quiet(
    conversation, server
):
    for n in range(20):
        ana = await conversation.join(f"ana {n}", "/ws/ana", reads=False)
        ana.vanish()

    assert await server.settled()


async def test_a_message_of_one_mebibyte_comes_back_whole(conversation):
    ana = await conversation.join("ana", "/chat/ws")

    await ana.send("x" * MEBIBYTE)

    await ana.expect("You sent: " + "x" * MEBIBYTE)


async def test_a_message_over_16_mebibytes_is_closed_with_1009(conversation):
    ana = await conversation.join("ana", "/ws")

    ana.announce(16 * MEBIBYTE + 1)

    await ana.expect_close(1009)


@pytest.mark.parametrize("path", ROUTES)
async def test_a_client_that_stops_reading_delays_only_itself(conversation, path):
    ana = await join(conversation, path)
    zoe = await conversation.join("zoe", path, reads=False)

    # Several times what the sockets between zoe and the server can hold.
    pushing = zoe.push("x" * MEBIBYTE, times=32)
    await ana.send("hello")

    await ana.expect(ROUTES[path][1] + "hello")
    assert not pushing.done()


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=1.0)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, server):
    ana = await conversation.join("ana", "/ws")
    await conversation.join("zoe", "/ws", reads=False)

    while server.handlers > 1:
        await ana.send("still here")
        await ana.expect("Message received: still here")


async def test_a_ping_that_fails_before_an_answer_leaves_no_trace(conversation, server):
    await conversation.join("ana", "/ws")
    [connection] = server.uvicorn.server_state.connections

    # As it is after a failed ping, while older messages still have to be written: until
    # they are, uvicorn answers a send with RuntimeError.
    connection.close_sent = True
    connection.queue.put_nowait({"type": "websocket.receive", "text": "hello"})

    assert await server.settled()


@pytest.mark.parametrize("path", ROUTES)
def test_a_client_of_fastapi_comes_and_leaves_quietly(example, path):
    greeting, answer = ROUTES[path]
    with TestClient(example.app) as client:
        for _ in range(3):
            with client.websocket_connect(path) as ana:
                assert greeting is None or ana.receive_text() == greeting
                ana.send_text("hello")
                assert ana.receive_text() == f"{answer}hello"


async def test_fifty_clients_come_and_go(conversation, server):
    async def visit(n):
        path = list(ROUTES)[n % len(ROUTES)]
        visitor = await join(conversation, path, f"visitor {n}")
        await visitor.send(str(n))
        await visitor.expect(f"{ROUTES[path][1]}{n}")
        if n % 3:
            visitor.vanish()
        else:
            await visitor.leave()

    await asyncio.gather(*(visit(n) for n in range(50)))

    assert await server.settled()


async def test_ctrl_c_ends_it_with_connections_open(process):
    async with Conversation(process.url) as conversation:
        busy = [await join(conversation, path, path) for path in ROUTES]
        idle = [await join(conversation, path, path) for path in ROUTES]
        for client in busy:
            client.push("hello", times=10_000)
            await client.receive()

        process.interrupt()

        process.wait()
        for client in idle:
            await client.expect_close(1012)
    assert "Traceback" not in process.log


async def test_ctrl_c_ends_it_while_a_client_floods_and_does_not_read():
    with ServerProcess(EXAMPLE, options=["--timeout-graceful-shutdown=1"]) as process:
        async with Conversation(process.url) as conversation:
            zoe = await conversation.join("zoe", "/ws/zoe", reads=False)
            ana = await join(conversation, "/ws/ana")
            pushing = zoe.push("x" * MEBIBYTE, times=1000)
            for _ in range(100):
                await ana.send("hello")
                await ana.expect("Client ana sent: hello")
            assert not pushing.done()

            process.interrupt()

            await asyncio.to_thread(process.wait)
            await ana.expect_close(1012)


async def test_the_page_lets_one_choose_the_path(server, browser):
    tab = await browser.open(server.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_text("closed with code 1000 Disconnect button").wait_for()
    await tab.get_by_role("button", name="/ws/ana", exact=True).click()
    await tab.get_by_text("Connected to client: ana").wait_for()
    await tab.get_by_label("Message", exact=True).fill("<b>hello</b>")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("Client ana sent: <b>hello</b>").wait_for()

    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_label("Path", exact=True).fill("/channels/12/ws")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("open: /channels/12/ws").wait_for()


async def test_the_page_shows_a_refused_path(server, browser):
    tab = await browser.open(server.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_role("button", name="/channels/seven/ws").click()

    await tab.get_by_text("/channels/seven/ws was refused").wait_for()
    await tab.get_by_text("closed with code 1006").wait_for()
    assert len(browser.errors) == 1
    assert "Unexpected response code: 403" in browser.errors.pop()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
