"""The secure server lets in those who have the token, on both paths, and nobody else."""

import asyncio
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from exercises.grader.clients import Conversation
from exercises.grader.serving import ServerProcess

EXAMPLE = Path(__file__).parent.parent / "examples" / "secure_server.py"
MEBIBYTE = 1024 * 1024
TOKEN = "?token=secret-token"
# Each path, what it says on opening, and how each answer begins.
PATHS = {
    "/ws/secure": (
        "Hello, authenticated_user! Welcome to the secure WebSocket.",
        "You said: ",
    ),
    "/ws/notify": (
        "Hello, authenticated_user! You are now connected to secure notifications.",
        "Notification received: ",
    ),
}
each_path = pytest.mark.parametrize("path", PATHS)


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    """Those who run the tests may have a TOKEN of their own."""
    monkeypatch.delenv("TOKEN", raising=False)


@pytest.fixture
def empty_token(monkeypatch):
    monkeypatch.setenv("TOKEN", "")


@pytest.fixture
def czech_token(monkeypatch):
    monkeypatch.setenv("TOKEN", "žluťoučký-kůň")


async def join(conversation, path, name="ana", query=TOKEN, **options):
    """Connect, and take the greeting."""
    client = await conversation.join(name, path + query, **options)
    await client.expect(PATHS[path][0])
    return client


@each_path
async def test_a_client_with_the_token_is_greeted_and_answered(conversation, path):
    ana = await join(conversation, path)
    texts = ["hello", "", "žluťoučký kůň 🐎", "\x00", "hello"]

    for text in texts:
        await ana.send(text)

    for text in texts:
        await ana.expect(PATHS[path][1] + text)


@each_path
@pytest.mark.parametrize(
    "query",
    [
        "",
        "?token=",
        "?token=wrong",
        "?token=secret-toke",
        "?token=secret-token2",
        "?token=SECRET-TOKEN",
        "?token=secret-token%20",
        "?token=%C5%BE",
        "?token=%FF%00",
        "?token=secret-token&token=wrong",
        "?Token=secret-token",
    ],
)
async def test_a_wrong_or_missing_token_is_refused(conversation, path, query):
    await conversation.expect_refusal("eve", path + query, 403)


@each_path
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer   "])
async def test_the_token_may_come_in_a_header(conversation, server, path, scheme):
    headers = {"Authorization": f"{scheme}secret-token"}

    ana = await join(conversation, path, query="", headers=headers)

    await ana.send("hello")
    await ana.expect(PATHS[path][1] + "hello")
    assert "secret-token" not in server.log


@each_path
@pytest.mark.parametrize(
    "value",
    [
        "Bearer wrong",
        "Bearer",
        "Bearer ",
        "secret-token",
        "Basic secret-token",
        "Bearersecret-token",
        "Bearer žluťoučký".encode().decode("latin-1"),
    ],
)
async def test_a_wrong_header_is_refused(conversation, path, value):
    headers = {"Authorization": value}

    await conversation.expect_refusal("eve", path, 403, headers=headers)


async def test_a_header_of_another_scheme_leaves_the_query_to_decide(conversation):
    # A proxy with a password of its own makes browsers send this.
    headers = {"Authorization": "Basic YW5hOnNlY3JldA=="}

    await join(conversation, "/ws/secure", headers=headers)


async def test_a_bearer_header_counts_more_than_the_query(conversation):
    headers = {"Authorization": "Bearer wrong"}

    await conversation.expect_refusal("eve", "/ws/secure" + TOKEN, 403, headers=headers)


@each_path
@pytest.mark.parametrize("query", ["", "?token=", TOKEN])
async def test_an_empty_token_in_the_environment_lets_nobody_in(
    empty_token, conversation, path, query
):
    await conversation.expect_refusal("eve", path + query, 403)
    await conversation.expect_refusal("eve", path, headers={"Authorization": "Bearer "})


async def test_the_token_of_the_environment_replaces_the_default(czech_token, conversation):
    await conversation.expect_refusal("eve", "/ws/secure" + TOKEN, 403)

    await join(conversation, "/ws/secure", query="?token=žluťoučký-kůň")


async def test_a_token_that_is_no_utf_8_still_works(monkeypatch, conversation, example):
    # So does Python hand over bytes of the environment that are no UTF-8.
    monkeypatch.setattr(example, "TOKEN", b"\xff\xfe".decode(errors="surrogateescape"))

    await conversation.expect_refusal("eve", "/ws/secure" + TOKEN, 403)


async def test_a_client_that_is_refused_disturbs_nobody(conversation, server):
    ana = await join(conversation, "/ws/secure")

    for _ in range(20):
        await conversation.expect_refusal("eve", "/ws/secure?token=guess", 403)

    await ana.send("still here")
    await ana.expect("You said: still here")
    assert server.handlers == 1


async def test_two_clients_hear_only_their_own(conversation):
    ana = await join(conversation, "/ws/secure")
    ben = await join(conversation, "/ws/notify", "ben")

    await ana.send("from ana")
    await ben.send("from ben")

    await ben.expect("Notification received: from ben")
    await ana.expect("You said: from ana")


@each_path
async def test_a_binary_message_is_closed_with_1003(conversation, path):
    ana = await join(conversation, path)
    ben = await join(conversation, path, "ben")

    await ana.send(b"hello")

    await ana.expect_close(1003, "text messages only")
    await ben.send("still here")
    await ben.expect(PATHS[path][1] + "still here")


@each_path
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


async def test_a_message_of_one_mebibyte_comes_back_whole(conversation):
    ana = await join(conversation, "/ws/secure")

    await ana.send("x" * MEBIBYTE)

    await ana.expect("You said: " + "x" * MEBIBYTE)


async def test_a_message_over_16_mebibytes_is_closed_with_1009(conversation):
    ana = await join(conversation, "/ws/secure")

    ana.announce(16 * MEBIBYTE + 1)

    await ana.expect_close(1009)


@each_path
async def test_a_client_that_stops_reading_delays_only_itself(conversation, path):
    ana = await join(conversation, path)
    zoe = await conversation.join("zoe", path + TOKEN, reads=False)

    # Several times what the sockets between zoe and the server can hold.
    pushing = zoe.push("x" * MEBIBYTE, times=32)
    await ana.send("hello")

    await ana.expect(PATHS[path][1] + "hello")
    assert not pushing.done()


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=1.0)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, server):
    ana = await join(conversation, "/ws/secure")
    await conversation.join("zoe", "/ws/secure" + TOKEN, reads=False)

    while server.handlers > 1:
        await ana.send("still here")
        await ana.expect("You said: still here")


async def test_a_ping_that_fails_before_an_answer_leaves_no_trace(conversation, server):
    await join(conversation, "/ws/secure")
    [connection] = server.uvicorn.server_state.connections

    # As it is after a failed ping, while older messages still have to be written: until
    # they are, uvicorn answers a send with RuntimeError.
    connection.close_sent = True
    connection.queue.put_nowait({"type": "websocket.receive", "text": "hello"})

    assert await server.settled()


@each_path
def test_a_client_of_fastapi_comes_and_leaves_quietly(example, path):
    greeting, answer = PATHS[path]
    with TestClient(example.app) as client:
        for _ in range(3):
            with client.websocket_connect(path + TOKEN) as ana:
                assert ana.receive_text() == greeting
                ana.send_text("hello")
                assert ana.receive_text() == f"{answer}hello"


async def test_fifty_clients_come_and_go(conversation, server):
    async def visit(n):
        path = list(PATHS)[n % 2]
        visitor = await join(conversation, path, f"visitor {n}")
        await visitor.send(str(n))
        await visitor.expect(f"{PATHS[path][1]}{n}")
        if n % 3:
            visitor.vanish()
        else:
            await visitor.leave()

    await asyncio.gather(*(visit(n) for n in range(50)))

    assert await server.settled()


async def test_ctrl_c_ends_it_with_connections_open(process):
    async with Conversation(process.url) as conversation:
        busy = [await join(conversation, path, path) for path in PATHS]
        idle = [await join(conversation, path, path) for path in PATHS]
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
            zoe = await conversation.join("zoe", "/ws/secure" + TOKEN, reads=False)
            ana = await join(conversation, "/ws/secure")
            pushing = zoe.push("x" * MEBIBYTE, times=1000)
            for _ in range(100):
                await ana.send("hello")
                await ana.expect("You said: hello")
            assert not pushing.done()

            process.interrupt()

            await asyncio.to_thread(process.wait)
            await ana.expect_close(1012)


async def test_the_page_shows_the_conversation_of_both_paths(server, browser):
    tab = await browser.open(server.http_url)

    await tab.get_by_label("Token", exact=True).fill("secret-token")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("Welcome to the secure WebSocket.").wait_for()
    await tab.get_by_label("Message", exact=True).fill("<b>hello</b>")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("You said: <b>hello</b>").wait_for()

    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_text("closed with code 1000 Disconnect button").wait_for()
    await tab.get_by_label("Path", exact=True).select_option("/ws/notify")
    await tab.get_by_role("button", name="Connect", exact=True).click()
    await tab.get_by_text("You are now connected to secure notifications.").wait_for()


async def test_the_page_shows_a_refused_token(server, browser):
    tab = await browser.open(server.http_url)

    await tab.get_by_label("Token", exact=True).fill("a wrong token & more")
    await tab.keyboard.press("Enter")

    await tab.get_by_text("refused: a wrong token, or no server").wait_for()
    await tab.get_by_text("closed with code 1006").wait_for()
    assert len(browser.errors) == 1
    assert "Unexpected response code: 403" in browser.errors.pop()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_label("Token", exact=True).fill("secret-token")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("connected", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
