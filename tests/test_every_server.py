"""What holds for every server, whatever its pattern."""

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from exercises.grader.clients import http_client
from exercises.grader.outcomes import Failure
from exercises.grader.serving import load

EXAMPLES = Path(__file__).parent.parent / "examples"
STEMS = sorted(script.stem for script in EXAMPLES.glob("*_server.py"))
SPURIOUS = "ERROR: ASGI callable returned without completing handshake."

BAD_MESSAGES = [
    b"",
    b"\x00\xff\xfe",
    "",
    "\x00",
    "not JSON",
    "null",
    "[]",
    "42",
    "NaN",
    "1e999",
    '"\\ud800"',
    "[" * 100_000,
    "9" * 5000,
    '{"type": "message", "content": "\\ud800"}',
    '{"type": "message", "content": 1e999}',
    '{"type": null}',
    '{"type": {"a": []}}',
    '{"type": "__class__"}',
    "x" * 1_000_000,
]


@pytest.fixture(params=STEMS)
def stem(request):
    return request.param


@pytest.fixture
def example(stem, tmp_path, monkeypatch):
    """The example, with a folder of its own for whatever it keeps."""
    monkeypatch.chdir(tmp_path)
    return load(EXAMPLES / f"{stem}.py")


@pytest.fixture
def paths(stem):
    """Where its WebSockets are, with a number in the place of each parameter."""
    source = (EXAMPLES / f"{stem}.py").read_text(encoding="utf-8")
    found = re.findall(r'\.websocket\("([^"]+)"\)', source)
    assert found
    return [re.sub(r"{\w+(:\w+)?}", "1", path) for path in found]


@pytest.fixture(autouse=True)
def refusals_are_no_trouble(server):
    """A refused handshake logs a line that means nothing; the response is right."""
    yield
    server.lines[:] = [line for line in server.lines if line != SPURIOUS]


async def test_the_page_is_served(server, stem):
    async with http_client() as client:
        answer = await client.get(server.http_url)

    assert answer.status_code == 200
    assert answer.text == (EXAMPLES / f"{stem}.html").read_text(encoding="utf-8")


async def test_no_message_leaves_a_trace(conversation, paths):
    """A server may refuse, close or answer; the fixtures see to it that it stays quiet."""
    for path in paths:
        for message in BAD_MESSAGES:
            with contextlib.suppress(Failure):
                # As browsers do.
                client = await conversation.join("mallory", path, compression="deflate")
                await client.send(message)
                await client.send("hello")
                await client.leave()


async def test_a_frame_that_is_too_large_is_closed_with_1009(conversation, paths):
    for path in paths:
        with contextlib.suppress(Failure):
            client = await conversation.join("mallory", path)
            client.announce(2**40)
            while await client.hears():
                pass
            assert client.code in (1000, 1009, 4001)


async def test_clients_that_come_and_go_without_a_word_leave_nothing(conversation, paths):
    async def visit(n, path):
        with contextlib.suppress(Failure):
            client = await conversation.join(f"visitor {n}", path)
            if n % 2:
                client.vanish()
            else:
                await client.leave()

    for path in paths:
        await asyncio.gather(*(visit(n, path) for n in range(30)))


async def test_a_handshake_that_never_ends_keeps_nobody_waiting(server, paths):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {paths[0]} HTTP/1.1\r\nUpgrade: webs".encode())
    await writer.drain()

    async with http_client() as client:
        assert (await client.get(server.http_url)).status_code == 200

    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""


async def test_an_unknown_path_is_refused(conversation):
    await conversation.expect_refusal("mallory", "/no/such/path")
