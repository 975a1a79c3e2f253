"""What holds for every server, whatever its pattern and whatever its clients do.

Each server is a row of LESSONS. That its page works below a prefix: `test_pages.py`.
"""

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import jwt
import pytest
from starlette.testclient import TestClient

from exercises.grader.clients import Client, Conversation, http_client
from exercises.grader.outcomes import Failure
from exercises.grader.redis_beside import RedisBeside
from exercises.grader.serving import load, patience, until

EXAMPLES = Path(__file__).parent.parent / "examples"
STEMS = sorted(script.stem for script in EXAMPLES.glob("*_server.py"))

PATIENCE = float(os.environ.get("PATIENCE", "1"))  # a factor, for a slow machine
DEADLINE = 20.0 * PATIENCE  # seconds; what is waited for usually comes within one
END = 2.0 * PATIENCE  # seconds in which a server ends after Ctrl-C

FULL = 0.2  # seconds for which a server takes nothing, so that all buffers are full

SMALL = 4096  # bytes that wait in each buffer between a server and a slow client
LARGE = 60_000  # characters of a text that is nearly too long
MEBIBYTE = 2**20  # bytes; many clients take no message that is larger
SECRET_KEY = "the key of the tests, of 32 bytes"  # of jwt_room_server


# How one speaks to each server. What is said is a number, and what makes it longer.


def text(n: int, size: int = 0) -> str:
    return f"{n}/" + "x" * size


def number(message: Any) -> int | None:
    """The number in a message of a server; none if it was sent for another reason."""
    found = re.search(r"(\d+)/x*", str(message))
    return int(found[1]) if found else None


def stroke_number(message: Any) -> int | None:
    """The number with which a stroke begins."""
    if isinstance(message, dict) and message["type"] == "stroke":
        return int(message["points"][0][0])
    return None


def order_status(n: int) -> tuple[int, str]:
    """An order of the first user, and its new status."""
    statuses = ["pending", "paid", "shipped", "delivered", "cancelled"]
    return 1 + n % 2, statuses[n % 5]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How its server is spoken to.

    `paths` are where {name} connects; most tests take the first. `wrap` makes a message of
    a client out of a text. `heard` finds the number in what a client hears, and `hears`
    says what it finds for a number. `constants` are set in the example.
    """

    paths: list[str]
    wrap: Callable[[str], str] = str
    heard: Callable[[Any], Any] = number
    hears: Callable[[int], Any] = int
    constants: dict[str, Any] = field(default_factory=dict)

    def say(self, n: int, size: int = 0) -> str:
        """A message of a client with a number, and about so many characters."""
        return self.wrap(text(n, size))


class Dialogue(Lesson):
    """The server answers a client, and nobody else hears of it."""


class Room(Lesson):
    """All clients hear what one of them says."""


class Chat(Room):
    """And what they say is a text."""


class Board(Room):
    """And what they say is a stroke."""

    def say(self, n: int, size: int = 0) -> str:
        points = [[n, 0], *[[1.2345678901234567e300] * 2] * min(999, size // 50)]
        stroke = {"type": "stroke", "points": points, "color": "#000000", "width": 1}
        return json.dumps(stroke)


@dataclass(frozen=True, kw_only=True)
class Events(Lesson):
    """All clients hear of each request to `post_to`, whose body is `post`."""

    post_to: Callable[[int], str]
    post: Callable[[int, str], Any]


class Stream(Lesson):
    """Each client hears the numbers from 1 to 10, and then the end."""


class Feed(Lesson):
    """Each client hears the newest time, again and again."""


LESSONS = {
    "echo_server": Dialogue(paths=["/ws/echo"]),
    "route_server": Dialogue(
        paths=["/ws/{name}", "/ws", "/channels/1/ws", "/chat/ws"],
    ),
    "chat_server": Chat(paths=["/ws/chat", "/ws/chat_additional"]),
    "named_chat_server": Chat(paths=["/ws/{name}"]),
    "room_server": Chat(
        paths=["/ws/chat/kitchen/{name}"],
        wrap=lambda text: json.dumps({"content": text}, ensure_ascii=False),
    ),
    "secure_server": Dialogue(
        paths=["/ws/secure?token=secret-token", "/ws/notify?token=secret-token"]
    ),
    "jwt_room_server": Chat(
        paths=["/ws/kitchen?token={token}"],
        wrap=lambda text: json.dumps({"type": "chat", "text": text}, ensure_ascii=False),
    ),
    "stream_server": Stream(
        paths=["/ws/stream"],
        heard=lambda message: int(message.split()[-1]),
        constants={"INTERVAL": 0.002},
    ),
    "progress_server": Stream(
        paths=["/ws/stream_progress"],
        heard=lambda message: int(message.split()[2][:-1]) // 10,
        constants={"BLOCK": b"", "TENTH": 1},
    ),
    "price_server": Feed(
        paths=["/ws/prices"],
        heard=lambda message: message["timestamp"],
        constants={"INTERVAL": 0.001},
    ),
    "notification_server": Events(
        paths=["/ws/notifications/ana"],
        post_to=lambda n: "/users/ana/notifications",
        post=lambda n, text: {"message": text[:1000]},
        constants={"DATABASE": ":memory:", "KEPT": 10_000},
    ),
    "order_server": Events(
        paths=["/ws/user_1"],
        heard=lambda update: (update["order_id"], update["status"]),
        hears=order_status,
        post_to=lambda n: f"/orders/{order_status(n)[0]}/status",
        post=lambda n, text: {"status": order_status(n)[1]},
        constants={"DATABASE": ":memory:"},
    ),
    "heartbeat_server": Dialogue(paths=["/ws"]),
    "resume_server": Events(
        paths=["/ws/events"],
        post_to=lambda n: "/events",
        post=lambda n, text: {"data": text},
    ),
    "redis_chat_server": Chat(paths=["/ws/lobby"]),
    "drawing_server": Board(
        paths=["/ws/drawing/board"],
        heard=stroke_number,
        constants={"BOARD_SIZE": 2**40},
    ),
}


def test_every_server_has_a_row_with_all_its_paths():
    assert sorted(LESSONS) == STEMS
    for stem, lesson in LESSONS.items():
        source = (EXAMPLES / f"{stem}.py").read_text(encoding="utf-8")
        assert source.count(".websocket(") == len(lesson.paths)


def servers(*kinds: type[Lesson]) -> Any:
    """Test the servers of some kinds, and not every one."""
    stems = [stem for stem, lesson in LESSONS.items() if isinstance(lesson, kinds)]
    return pytest.mark.parametrize("stem", stems)


def paths_of(lesson: Lesson, name: str) -> list[str]:
    claims = {"sub": name, "exp": int(time.time()) + 3600}
    token = jwt.encode(claims, SECRET_KEY)
    return [path.format(name=name, token=token) for path in lesson.paths]


class Talk:
    """Clients of a server, and what they say and hear by number."""

    def __init__(self, lesson: Lesson, server: Any, conversation: Conversation) -> None:
        self.lesson, self.server, self.conversation = lesson, server, conversation

    async def join(self, name: str, place: int = 0, **options: Any) -> Client:
        path = paths_of(self.lesson, name)[place]
        return await self.conversation.join(name, path, **options)

    async def join_without_reading(self, name: str) -> Client:
        """Let somebody join who reads nothing; the server notices it after a few texts."""
        client = await self.join(name, reads=False)
        transport = self.connection(client).transport
        transport.set_write_buffer_limits(0)
        line = transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        return client

    def connection(self, client: Client) -> Any:
        """The server's end of a client's connection."""
        address = client.connection.transport.get_extra_info("sockname")
        connections = self.server.uvicorn.server_state.connections
        return next(each for each in connections if each.client == address)

    def read_again(self, client: Client) -> None:
        """Read what waits, through buffers of the usual size."""
        line = self.connection(client).transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MEBIBYTE)
        client.read_again()

    async def say(self, client: Client, n: int, size: int = 0) -> None:
        """Let a client say a number; where the server speaks, it is posted instead."""
        if isinstance(self.lesson, Events):
            path, body = self.lesson.post_to(n), self.lesson.post(n, text(n, size))
            await self.conversation.post("till", path, body, 200, 201, within=DEADLINE)
        elif isinstance(self.lesson, Room | Dialogue):
            write(client, frame(self.lesson.say(n, size)))
        await asyncio.sleep(0)

    def flood(self, client: Client, numbers: Iterable[int], size: int = 0) -> None:
        """Let a client say many numbers in one breath, whether the server reads or not."""
        write(client, b"".join(frame(self.lesson.say(n, size)) for n in numbers))

    async def next(self, client: Client) -> Any:
        """The next number that a client hears."""
        heard = None
        while heard is None:
            heard = self.lesson.heard(await client.receive(within=DEADLINE))
        return heard

    async def hear(self, client: Client, numbers: Iterable[int]) -> None:
        """Expect that a client hears these numbers next, and no other between them."""
        for n in numbers:
            assert await self.next(client) == self.lesson.hears(n)

    async def hear_to_the_end(self, client: Client) -> list[Any]:
        """What a client hears until its connection is closed."""
        heard = []
        with contextlib.suppress(Failure):
            while True:
                heard.append(await self.next(client))
        assert client.code is not None, "its connection is still open"
        return heard


def frame(content: str | bytes, first: int = 0x81) -> bytes:
    """A frame of a client, by default a whole text."""
    content = content.encode() if isinstance(content, str) else content
    # RFC 6455, section 5.2. A masking key of zeros leaves everything as it is.
    if (size := len(content)) < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 2**16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + content


def write(client: Client, sent: bytes) -> None:
    """Send bytes, whatever they are."""
    client.connection.transport.write(sent)


# Middlewares, as one finds them around an app


class Middleware:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return await self.app(scope, receive, send)

        async def send_on(message: Any) -> None:
            await self.send(send, message)

        return await self.app(scope, receive, send_on)

    async def send(self, send: Any, message: Any) -> None:
        await send(message)


class Tracing(Middleware):
    """Says in a context variable what is being done."""

    doing: ContextVar[str] = ContextVar("doing")

    async def send(self, send: Any, message: Any) -> None:
        before = self.doing.set("sending")
        try:
            await send(message)
        finally:
            # Another task has another context, and this fails there.
            self.doing.reset(before)


class Leisurely(Middleware):
    """Takes two more turns of the event loop for each message."""

    async def send(self, send: Any, message: Any) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await send(message)


class Limiting(Middleware):
    """Gives each message a limit in time."""

    LIMIT = 0.1  # seconds
    passed = False

    async def send(self, send: Any, message: Any) -> None:
        try:
            async with asyncio.timeout(self.LIMIT):
                await send(message)
        except TimeoutError:
            self.passed = True
            raise


class Counting(Middleware):
    """Counts the texts that the app has read from each client."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.texts: dict[Any, int] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def count() -> Any:
            message = await receive()
            if message["type"] == "websocket.receive":
                client = scope["client"]
                self.texts[client] = self.texts.get(client, 0) + 1
            return message

        return await super().__call__(scope, count, send)


def behind(*middlewares: type[Middleware]) -> Any:
    names = [middleware.__name__ for middleware in middlewares]
    return pytest.mark.parametrize("middleware", middlewares, ids=names)


# Fixtures


@pytest.fixture(params=STEMS)
def stem(request):
    return request.param


@pytest.fixture
def lesson(stem):
    return LESSONS[stem]


@pytest.fixture
def middleware():
    return Middleware


@pytest.fixture
def environment(stem):
    """The settings of a server, and a Redis if it needs one."""
    if stem != "redis_chat_server":
        yield {"SECRET_KEY": SECRET_KEY}
        return
    redis = RedisBeside()
    yield redis.environment
    redis.end()


@pytest.fixture
def example(stem, lesson, middleware, environment, tmp_path, monkeypatch):
    """The example behind a middleware, with a folder of its own for what it keeps."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    example = load(EXAMPLES / f"{stem}.py")
    for name, value in lesson.constants.items():
        assert hasattr(example, name)
        setattr(example, name, value)
    example.app = middleware(example.app)
    return example


@pytest.fixture
def talk(lesson, server, conversation):
    return Talk(lesson, server, conversation)


# What uvicorn says of a handshake that is rightly refused, and of a text that is no UTF-8.
SPURIOUS = re.compile(
    r"ERROR: (ASGI callable returned without completing handshake\.|Invalid UTF-8 sequence)"
)


@pytest.fixture(autouse=True)
def some_lines_of_the_log_are_no_trouble(request):
    """What the client gets is right."""
    lines = []
    if "server" in request.fixturenames:
        lines = request.getfixturevalue("server").lines
    yield
    lines[:] = [line for line in lines if not SPURIOUS.match(line)]


# One client, or many who do no harm


async def test_the_page_is_served(server, stem):
    async with http_client() as client:
        answer = await client.get(server.http_url)

    assert answer.status_code == 200
    assert answer.text == (EXAMPLES / f"{stem}.html").read_text(encoding="utf-8")


async def test_an_unknown_path_is_refused(conversation):
    await conversation.expect_refusal("mallory", "/no/such/path")


async def test_a_handshake_that_never_ends_keeps_nobody_waiting(server, lesson):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {lesson.paths[0]} HTTP/1.1\r\nUpgrade: webs".encode())
    await writer.drain()

    async with http_client() as client:
        assert (await client.get(server.http_url)).status_code == 200

    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""


async def test_clients_that_come_and_go_without_a_word_leave_nothing(talk):
    async def visit(n, place):
        client = await talk.join(f"visitor-{n}", place)
        if n % 2:
            client.vanish()
        else:
            await client.leave()

    for place in range(len(talk.lesson.paths)):
        await asyncio.gather(*(visit(n, place) for n in range(30)))


def test_a_test_client_connects_and_leaves_quietly(example, lesson):
    """Starlette's own cancels what is left of an endpoint whose client has left."""
    with TestClient(example.app) as client:
        for path in 2 * paths_of(lesson, "ana"):
            with client.websocket_connect(path):
                pass


# Hostile clients, and others who must not notice them


class Bystanders:
    """Ana and Ben, who use the server and expect that it works."""

    def __init__(self, talk: Talk) -> None:
        self.talk, self.n = talk, 0

    async def join(self) -> None:
        self.ana, self.ben = [await self.talk.join(name) for name in ["ana", "ben"]]

    async def go_on(self) -> None:
        """Say something, and hear that, and no other number since the last time."""
        both, talk, self.n = (self.ana, self.ben), self.talk, self.n + 1
        match talk.lesson:
            case Stream():
                for each in both:
                    await talk.hear(each, range(1, 11))
                    await each.expect_close(1000)
                await self.join()
            case Feed():
                for each in both:
                    assert await talk.next(each) <= await talk.next(each)
            case Dialogue():
                for each in both:
                    await talk.say(each, self.n)
                    await talk.hear(each, [self.n])
            case _:
                await talk.say(self.ana, self.n)
                for each in both:
                    await talk.hear(each, [self.n])


@pytest.fixture
async def bystanders(talk):
    bystanders = Bystanders(talk)
    await bystanders.join()
    return bystanders


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


async def test_a_bad_message_is_noticed_by_nobody_else(bystanders, talk):
    """A server may refuse, close or answer; the fixtures see to it that it stays quiet."""
    for message in BAD_MESSAGES:
        for place in range(len(talk.lesson.paths)):
            with contextlib.suppress(Failure):
                # As browsers do.
                mallory = await talk.join("mallory", place, compression="deflate")
                await mallory.send(message)
                await mallory.send("hello")
                await mallory.leave()
        await bystanders.go_on()


# RFC 6455, section 5.2: the opcodes, and the bits before them.
CONTINUATION, TEXT, UNKNOWN, CLOSE, PING = 0x00, 0x01, 0x03, 0x08, 0x09
FINAL, RESERVED = 0x80, 0x40
HUGE = b"\xff" + struct.pack("!Q", 2**40)  # a length, and the mask bit before it

# What breaks the rules of the protocol, and the code with which its client is closed; none
# if a client might still go on.
BAD_FRAMES = {
    "not UTF-8": (frame(b"\xff\xfe"), 1007),
    "not masked": (b"\x81\x05hello", 1002),
    "an unknown opcode": (frame("hello", FINAL | UNKNOWN), 1002),
    "a reserved bit": (frame("hello", FINAL | RESERVED | TEXT), 1002),
    "a continuation of nothing": (frame("hello", FINAL | CONTINUATION), 1002),
    "a ping in two parts": (frame("hello", PING), 1002),
    "a ping that is too long": (frame("x" * 126, FINAL | PING), 1002),
    "half a close code": (frame("x", FINAL | CLOSE), 1002),
    "a close code that is never sent": (frame(b"\x03\xed", FINAL | CLOSE), 1002),
    "a huge text": (b"\x81" + HUGE, 1009),
    "a huge second part": (frame("hello", TEXT) + b"\x80" + HUGE, 1009),
    "parts without end": (
        frame("hello", TEXT) + 1000 * frame("hello", CONTINUATION),
        None,
    ),
    "half a text": (frame("hello")[:8], None),
    "the first byte of a text": (b"\x81", None),
}


async def test_a_bad_frame_is_noticed_by_nobody_else(bystanders, talk):
    for sent, code in BAD_FRAMES.values():
        mallory = await talk.join("mallory")
        write(mallory, sent)
        await bystanders.go_on()
        if code:
            while await mallory.hears(DEADLINE):
                pass
            # A stream may have ended before that.
            assert mallory.code in ({code, 1000} if is_stream(talk) else {code})
        mallory.vanish()


def is_stream(talk: Talk) -> bool:
    return isinstance(talk.lesson, Stream)


async def test_a_reset_in_the_middle_of_a_text_is_noticed_by_nobody_else(bystanders, talk):
    for size in [0, LARGE]:
        for reads in [True, False]:
            mallory = await talk.join("mallory", reads=reads)
            write(mallory, frame("hello") + frame("x" * size)[:-1])
            await bystanders.go_on()
            mallory.vanish()
            await bystanders.go_on()


@pytest.fixture
def longest(example):
    return getattr(example, "LONGEST", None)


async def test_a_text_that_is_too_long_ends_its_sender_alone(bystanders, talk, longest):
    """Where no other client hears a text, uvicorn's own limit is enough."""
    mallory = await talk.join("mallory")

    await mallory.send(text(0, longest or 10 * LARGE))

    if longest:
        while await mallory.hears(DEADLINE):
            pass
        assert mallory.code == 1009
    await bystanders.go_on()
    if not longest and not is_stream(talk):
        while talk.lesson.heard(await mallory.receive()) is None:
            pass
        assert mallory.code is None


# Clients that read slowly, and middlewares


async def fill(talk: Talk, ana: Client, zoe: Client) -> int:
    """Let the server speak until it waits for Zoe for a while; return how many numbers."""
    connection, n, waiting = talk.connection(zoe), 0, 0
    while waiting < 50 and not connection.disconnected:
        await speak(talk, ana, zoe, n)
        n += 1
        waiting = 0 if connection.writable.is_set() else waiting + 1
    return n


async def speak(talk: Talk, ana: Client, zoe: Client, n: int) -> None:
    """Let the server say a number to Zoe, and to Ana if it tells others, too."""
    match talk.lesson:
        case Dialogue():
            await talk.say(zoe, n, LARGE // 10)
        case Room() | Events():
            await talk.say(ana, n, LARGE // 10)
            await talk.hear(ana, [n])
        case _:
            await asyncio.sleep(0)


@servers(Room, Events, Dialogue)
@behind(Middleware, Tracing, Leisurely)
async def test_a_slow_reader_delays_nobody_and_catches_up(talk, middleware):
    ana, ben = [await talk.join(name) for name in ["ana", "ben"]]
    zoe = await talk.join_without_reading("zoe")

    said = range(await fill(talk, ana, zoe))

    if not isinstance(talk.lesson, Dialogue):
        await talk.hear(ben, said)
    talk.read_again(zoe)
    await talk.hear(zoe, said)


@pytest.mark.parametrize("stem", ["stream_server"])
@behind(Middleware, Tracing, Leisurely)
async def test_a_stream_waits_for_a_slow_reader(talk, example, middleware):
    example.COUNT, example.INTERVAL = 1000, 0.0
    zoe = await talk.join_without_reading("zoe")
    assert await until(lambda: not talk.connection(zoe).writable.is_set(), DEADLINE)

    talk.read_again(zoe)

    await talk.hear(zoe, range(1, 1001))
    await zoe.expect_close(1000)


@servers(Feed)
@behind(Middleware, Tracing, Leisurely)
async def test_a_slow_listener_delays_nobody_and_gets_the_newest(talk, middleware):
    zoe = await talk.join_without_reading("zoe")
    await fill(talk, zoe, zoe)
    ana = await talk.join("ana")

    heard = [await talk.next(ana) for _ in range(500)]
    talk.read_again(zoe)
    late = 0
    while await talk.next(zoe) < heard[-1]:
        late += 1

    assert heard == sorted(heard)
    # More was on its way to her, but not as much as she has missed.
    assert late < 500


@servers(Room, Events, Dialogue, Feed)
@behind(Limiting)
async def test_a_middleware_with_a_limit_in_time_ends_the_slow_and_nobody_else(
    bystanders, talk, example, middleware, server, monkeypatch
):
    monkeypatch.setattr(example, "CLOSE_TIMEOUT", 0.1, raising=False)
    zoe = await talk.join_without_reading("zoe")

    while not example.app.passed:
        await speak(talk, bystanders.ana, zoe, bystanders.n)
        bystanders.n += 1

    assert await until(lambda: server.handlers == 2, DEADLINE)
    if isinstance(talk.lesson, Room | Events):
        await talk.hear(bystanders.ben, range(bystanders.n))
    await bystanders.go_on()


# Floods, in rooms


@pytest.fixture
async def trio(talk, example):
    """Ana and Ben, and Zoe, who reads nothing for now."""
    example.BACKLOG = 200  # which is less than what Zoe is to miss
    example.CLOSE_TIMEOUT = DEADLINE  # for her to hear why
    names = ["ana", "ben"]
    return *[await talk.join(name) for name in names], await talk.join_without_reading(
        "zoe"
    )


async def expect_eviction(talk: Talk, zoe: Client, said: Iterable[int]) -> None:
    """Expect that Zoe hears the first of these numbers, and then why she hears no more."""
    talk.read_again(zoe)
    heard = await talk.hear_to_the_end(zoe)
    assert heard == list(said)[: len(heard)]
    assert (zoe.code, zoe.reason) == (1013, "reads too slowly")


@servers(Room)
async def test_a_flood_of_long_texts_evicts_the_stalled_and_nobody_else(
    talk, example, trio
):
    ana, ben, zoe = trio

    talk.flood(ana, range(800), LARGE)

    for each in [ana, ben]:
        await talk.hear(each, range(800))
    await expect_eviction(talk, zoe, range(800))


@servers(Room)
@pytest.mark.parametrize("count", [300, 3000])
@behind(Leisurely)
async def test_a_flood_through_a_middleware_evicts_nobody(talk, count, middleware):
    ana, ben = [await talk.join(name) for name in ["ana", "ben"]]

    talk.flood(ana, range(count))

    for each in [ana, ben]:
        await talk.hear(each, range(count))


@servers(Room)
async def test_a_flood_of_short_texts_evicts_nobody(talk):
    ana, ben = [await talk.join(name) for name in ["ana", "ben"]]

    talk.flood(ana, range(30_000))

    for each in [ana, ben]:
        await talk.hear(each, range(30_000))


@servers(Room)
async def test_three_who_flood_at_once_evict_the_stalled_and_nobody_else(
    talk, example, trio
):
    ana, ben, zoe = trio
    speakers = [ana, ben, await talk.join("eve")]

    for third, speaker in enumerate(speakers):
        talk.flood(speaker, range(third, 3000, 3), 200)

    for each in speakers:
        heard = [await talk.next(each) for _ in range(3000)]
        for third in range(3):
            assert [n for n in heard if n % 3 == third] == list(range(third, 3000, 3))
    await expect_eviction(talk, zoe, heard)


@servers(Room)
@behind(Counting)
async def test_a_speaker_who_does_not_read_is_not_read_and_misses_nothing(
    talk, example, middleware
):
    """Until it reads what it has said itself."""
    ana, zoe = await talk.join("ana"), await talk.join_without_reading("zoe")
    texts, client, spoken = example.app.texts, talk.connection(zoe).client, 2000

    talk.flood(zoe, range(2000), 200)
    before, heard = -1, []
    while texts.get(client, 0) != before:
        before = texts.get(client, 0)
        # In the time in which somebody else is read 50 times, Zoe would be read, too.
        for n in range(spoken, spoken + 50):
            await talk.say(ana, n)
            while n not in heard:
                heard.append(await talk.next(ana))
        spoken += 50
    assert before < 2000
    talk.read_again(zoe)

    heard += [await talk.next(ana) for _ in range(spoken - len(heard))]
    assert [n for n in heard if n < 2000] == list(range(2000))
    assert [await talk.next(zoe) for _ in heard] == heard


@servers(Room)
@behind(Counting)
async def test_what_was_read_of_a_flood_is_heard_though_its_speaker_is_cut(
    talk, example, middleware, server
):
    ana, ben = [await talk.join(name) for name in ["ana", "ben"]]
    zoe = await talk.join_without_reading("zoe")
    connection = talk.connection(zoe)

    talk.flood(zoe, range(1000), LARGE // 10)
    assert await until(lambda: not connection.writable.is_set(), DEADLINE)
    zoe.vanish()

    assert await until(lambda: server.handlers == 2, DEADLINE)
    assert connection.queue.empty()
    for each in [ana, ben]:
        await talk.hear(each, range(example.app.texts[connection.client]))
        assert each.code is None


# Floods of events


@servers(Events)
@behind(Leisurely)
async def test_three_who_post_at_once_evict_nobody(talk, middleware):
    """A client that does not read keeps its place as long as little waits for it."""
    ana, ben = [await talk.join(name) for name in ["ana", "ben"]]
    zoe = await talk.join_without_reading("zoe")

    async def post(third: int) -> None:
        for n in range(third, 300, 3):
            await talk.say(ana, n, LARGE)

    await asyncio.gather(*(post(third) for third in range(3)))

    heard = [await talk.next(ana) for _ in range(300)]
    assert sorted(heard) == sorted(talk.lesson.hears(n) for n in range(300))
    talk.read_again(zoe)
    for each in [ben, zoe]:
        assert [await talk.next(each) for _ in range(300)] == heard


@pytest.mark.parametrize("stem", ["order_server", "resume_server"])
async def test_a_flood_of_events_evicts_the_stalled_and_nobody_else(talk, trio):
    """The notification server keeps in its database what it cannot send."""
    ana, ben, zoe = trio

    for n in range(600):
        await talk.say(ana, n, LARGE)

    for each in [ana, ben]:
        await talk.hear(each, range(600))
    await expect_eviction(talk, zoe, [talk.lesson.hears(n) for n in range(600)])


# The largest message


@pytest.mark.parametrize(
    "character", ["x", "\x00", '"', "\x7f", "é", "\u2028", "\U0001f434"]
)
@servers(Chat)
async def test_the_longest_text_is_one_that_many_clients_take(talk, character, longest):
    """JSON and UTF-8 make several bytes of some characters."""
    ana, ben = [await talk.join(name, max_size=MEBIBYTE) for name in ["ana", "ben"]]
    room = longest - len(talk.lesson.wrap("1/"))
    width = len(talk.lesson.wrap(character)) - len(talk.lesson.wrap(""))

    await ana.send(talk.lesson.wrap("1/" + character * (room // width)))
    await talk.say(ana, 2)

    for each in [ana, ben]:
        await talk.hear(each, [1, 2])


# The end


@pytest.mark.skipif(sys.platform == "win32", reason="no test can press Ctrl-C there")
async def test_the_command_ends_though_a_client_floods_and_does_not_read(
    stem, lesson, environment, tmp_path
):
    """At Ctrl-C, and before that when a file has changed, if it is told to reload then."""
    for file in EXAMPLES.glob(f"{stem}.*"):
        shutil.copy(file, tmp_path)
    with Command(command_of(stem), tmp_path, environment) as command:
        async with Conversation(await command.address()) as conversation:
            [path, *_] = paths_of(lesson, "zoe")
            if "--reload" in command.line:
                await flood_without_reading(conversation, path, lesson)

                (tmp_path / f"{stem}.py").touch()

                await command.logs("Reloading...")
                async with patience(END):
                    await command.logs("Finished server process")
                await command.logs("Application startup complete", times=2)
            await flood_without_reading(conversation, path, lesson)

            command.interrupt()

            async with patience(END):
                assert await until(command.has_ended, DEADLINE), command.log
    # The option of the command cancels what does not end by itself, and uvicorn says so.
    assert set(ERRORS.findall(command.log)) <= {"asyncio.exceptions.CancelledError"}


ERRORS = re.compile(r"^\w[\w.]*(?:Error|Exception|Disconnect|Warning|Interrupt)\b", re.M)


def command_of(stem: str) -> str:
    """What the docstring says to type."""
    source = (EXAMPLES / f"{stem}.py").read_text(encoding="utf-8")
    typed = re.search(r"n the folder examples:\n\n +(uvicorn .+)", source)
    assert typed and "--timeout-graceful-shutdown 1" in typed[1]
    return typed[1]


class Command:
    """A command as it is typed into a terminal, but for the port."""

    def __init__(self, line: str, folder: Path, environment: dict[str, str]) -> None:
        self.line, self.file = line, folder / "log"
        words = [sys.executable, "-B", "-m", *shlex.split(line), "--port", "0"]
        with self.file.open("w") as log:
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                env=os.environ | environment,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def log(self) -> str:
        return self.file.read_text(encoding="utf-8")

    async def logs(self, text: str, times: int = 1) -> None:
        assert await until(lambda: self.log.count(text) >= times, DEADLINE), self.log

    async def address(self) -> str:
        """Where it listens, as soon as it does."""
        await self.logs("Application startup complete")
        here = ("127.0.0.1", int(re.findall(r"http://127\.0\.0\.1:(\d+)", self.log)[0]))

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(here):
                return True
            return False

        assert await until(listens, DEADLINE), self.log
        return f"ws://127.0.0.1:{here[1]}"

    def interrupt(self) -> None:
        """Ctrl-C: a terminal tells all processes of the command."""
        os.killpg(self.process.pid, signal.SIGINT)

    def has_ended(self) -> bool:
        return self.process.poll() is not None


async def flood_without_reading(
    conversation: Conversation, path: str, lesson: Lesson
) -> None:
    """Return when the server takes nothing more, or has taken much and goes on."""
    zoe = await conversation.join("zoe", path, reads=False)
    message = lesson.say(0, LARGE)
    with contextlib.suppress(TimeoutError):
        for _ in range(200):
            async with asyncio.timeout(FULL):
                await zoe.connection.send(message)
    zoe.push(message, times=1_000_000)
