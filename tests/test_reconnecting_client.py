"""The reconnecting client comes back when it should, and hands over each event once."""

import asyncio
import itertools
import json
import random
import re
import sys
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConnectionClosed,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
)
from websockets.http11 import Response

from exercises.grader.serving import load
from exercises.grader.serving_here import serve_here

EXAMPLES = Path(__file__).parent.parent / "examples"
EPOCH = "e1"


def hello(epoch=EPOCH, recovered=True):
    return {"type": "hello", "epoch": epoch, "recovered": recovered}


def events(*ids):
    return [{"type": "event", "id": n, "data": f"event {n}"} for n in ids]


# What a server does with one attempt: it sends messages, and then the last one of these.


def close(code, *messages):
    async def act(websocket):
        for message in messages:
            await websocket.send(json.dumps(message))
        await websocket.close(code)

    return act


def abort(*messages):
    async def act(websocket):
        for message in messages:
            await websocket.send(json.dumps(message))
        websocket.transport.abort()

    return act


class ScriptedServer:
    """Does with each attempt what its script says; after the last line it says 4001.

    An integer in the script refuses the opening handshake with this HTTP status.
    """

    def __init__(self, *script):
        self.script = list(script)
        self.attempts = []  # what each attempt asked for: its path
        self.serving = None
        self.port = 0

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()

    async def start(self):
        self.serving = await serve(
            self.act, "127.0.0.1", self.port, process_request=self.answer
        )
        self.port = self.serving.sockets[0].getsockname()[1]

    async def stop(self):
        self.serving.close()
        await self.serving.wait_closed()

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/ws/events"

    def answer(self, connection, request):
        self.attempts.append(request.path)
        if self.script and isinstance(self.script[0], int):
            # Not `respond()`: Python has no names for statuses such as 522.
            end = Headers({"Content-Length": "0", "Connection": "close"})
            return Response(self.script.pop(0), "", end)
        return None

    async def act(self, websocket):
        await (self.script.pop(0) if self.script else close(4001))(websocket)


class Clock:
    """In place of time and chance: writes down the bounds, and waits not at all."""

    def __init__(self):
        self.bounds = []
        self.waits = []
        self.chance = random.Random(14)

    def uniform(self, low, high):
        assert low == 0
        self.bounds.append(high)
        return self.chance.uniform(low, high)

    async def wait(self, seconds):
        self.waits.append(seconds)
        assert len(self.waits) < 50, "it never gives up"


@pytest.fixture
def clock():
    return Clock()


PROXIES = ["http_proxy", "https_proxy", "all_proxy", "socks_proxy", "ws_proxy"]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Leave no proxy in the environment, and none that is left out."""
    for name in [*PROXIES, "no_proxy"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def hear_out(example, server, clock):
    """All that the client hands over until it gives up, and why it gives up."""
    heard = []
    try:
        async for message in example.follow(
            server.url, sleep=clock.wait, uniform=clock.uniform
        ):
            heard += [message]
    except (ConnectionClosed, InvalidStatus, InvalidProxyStatus) as ending:
        return heard, ending
    raise AssertionError("it never gives up by itself")


# When it comes back, and when not


async def test_it_does_not_come_back_after_4001(example, clock):
    async with ScriptedServer(close(4001, hello()), close(1000)) as server:
        heard, ending = await hear_out(example, server, clock)

    assert heard == [hello()]
    assert ending.rcvd.code == 4001
    assert (len(server.attempts), clock.waits) == (1, [])


LATER = [408, 425, 429]
FINAL = [status for status in range(400, 500) if status not in LATER]


@pytest.mark.parametrize("status", FINAL)
async def test_it_does_not_come_back_after_a_refused_handshake(example, clock, status):
    async with ScriptedServer(status, close(1000)) as server:
        heard, ending = await hear_out(example, server, clock)

    assert heard == []
    assert ending.response.status_code == status
    assert (len(server.attempts), clock.waits) == (1, [])


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_ran_out_meanwhile_ends_it(example, clock, status):
    async with ScriptedServer(abort(hello(), *events(1)), status) as server:
        heard, ending = await hear_out(example, server, clock)

    assert heard == [hello(), *events(1)]
    assert ending.response.status_code == status
    assert len(server.attempts) == 2


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 1012, 1013, 4000, 4002])
async def test_it_comes_back_after_any_other_close_code(example, clock, code):
    async with ScriptedServer(close(code, hello())) as server:
        await hear_out(example, server, clock)

    assert (len(server.attempts), len(clock.waits)) == (2, 1)


async def test_it_comes_back_after_a_cut_line(example, clock):
    async with ScriptedServer(abort(hello()), abort()) as server:
        await hear_out(example, server, clock)

    assert (len(server.attempts), len(clock.waits)) == (3, 2)


@pytest.mark.parametrize("status", [*LATER, *range(500, 600)])
async def test_it_comes_back_after_a_passing_http_error(example, clock, status):
    async with ScriptedServer(status, status) as server:
        await hear_out(example, server, clock)

    assert (len(server.attempts), len(clock.waits)) == (3, 2)


async def test_it_comes_back_when_the_line_is_cut_in_the_handshake(example, clock):
    async def cut_twice_then_refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if len(clock.waits) == 2:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    raw = await asyncio.start_server(cut_twice_then_refuse, "127.0.0.1", 0)
    async with raw:
        raw.url = f"ws://127.0.0.1:{raw.sockets[0].getsockname()[1]}"
        await hear_out(example, raw, clock)

    assert len(clock.waits) == 2


async def test_it_comes_back_after_a_restart(example, clock):
    async with ScriptedServer(close(1012, hello(), *events(1))) as server:

        async def away_for_three_attempts(seconds):
            if not clock.waits:
                await server.stop()
            clock.waits.append(seconds)
            if len(clock.waits) == 4:
                await server.start()

        clock.wait = away_for_three_attempts
        heard, _ = await hear_out(example, server, clock)

    assert heard == [hello(), *events(1)]
    assert (len(server.attempts), len(clock.waits)) == (2, 4)


async def test_a_wrong_url_is_told_at_once(example, clock):
    with pytest.raises(InvalidURI):
        async for _ in example.follow("http://127.0.0.1/", sleep=clock.wait):
            pass

    assert clock.waits == []


# Through which door it goes


@asynccontextmanager
async def proxy(*answers):
    """A proxy that gives these answers; it has a `url`, and what it was `asked`."""
    answers, tasks = list(answers), []

    async def answer(reader, writer):
        tasks.append(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        server.asked.append(head.split(b"\r\n")[0].decode())
        writer.write(f"{answers.pop(0)}\r\nContent-Length: 0\r\n\r\n".encode())
        await reader.read()  # The client hangs up first.
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    server.asked = []
    server.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield server
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("name", PROXIES)
async def test_a_proxy_is_not_asked_for_this_machine(example, clock, monkeypatch, name):
    async with proxy() as between, ScriptedServer(abort(hello(), *events(1))) as server:
        monkeypatch.setenv(name, between.url)
        heard, _ = await hear_out(example, server, clock)

        assert heard == [hello(), *events(1)]
        assert between.asked == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"])
async def test_this_machine_has_several_names(example, clock, monkeypatch, host):
    class Enough(Exception):
        pass

    async def stop(seconds):
        raise Enough

    async with proxy() as between:
        monkeypatch.setenv("http_proxy", between.url)
        with pytest.raises(Enough):  # Nobody listens at port 9.
            async for _ in example.follow(f"ws://{host}:9/", sleep=stop):
                pass

        assert between.asked == []


async def test_another_machine_is_reached_through_the_proxy(example, clock, monkeypatch):
    passing = ["HTTP/1.1 502 Bad", "HTTP/1.1 522 Away", "HTTP/1.1 429 Busy", "no HTTP"]
    async with proxy(*passing, "HTTP/1.1 407 Who") as between:
        monkeypatch.setenv("http_proxy", between.url)
        between.url = "ws://example.invalid/ws/events"
        heard, ending = await hear_out(example, between, clock)

        assert ending.response.status_code == 407
        assert (heard, len(clock.waits)) == ([], 4)
        assert between.asked == ["CONNECT example.invalid:80 HTTP/1.1"] * 5


# How long it waits


async def test_the_bounds_double_up_to_thirty_seconds(example, clock):
    async with ScriptedServer(*[503] * 8) as server:
        await hear_out(example, server, clock)

    assert clock.bounds == [1, 2, 4, 8, 16, 30, 30, 30]


async def test_it_waits_as_long_as_chance_says(example, clock):
    drawn = itertools.count(0.25)
    clock.uniform = lambda low, high: next(drawn)
    async with ScriptedServer(*[503] * 3) as server:
        await hear_out(example, server, clock)

    assert clock.waits == [0.25, 1.25, 2.25]


async def test_by_itself_it_uses_the_clock_and_full_jitter(example):
    defaults = example.follow.__kwdefaults__

    assert defaults == {"sleep": asyncio.sleep, "uniform": random.uniform}


async def test_a_hello_starts_the_waits_again_at_one_second(example, clock):
    async with ScriptedServer(503, 503, abort(hello()), 503, abort(hello())) as server:
        await hear_out(example, server, clock)

    assert clock.bounds == [1, 2, 1, 2, 1]


async def test_a_connection_without_a_hello_is_no_success(example, clock):
    async with ScriptedServer(*[close(1013)] * 4) as server:
        await hear_out(example, server, clock)

    assert clock.bounds == [1, 2, 4, 8]


# Each event once


async def test_it_asks_for_what_follows_the_last_event(example, clock):
    script = [
        abort(hello()),
        abort(hello(), *events(1, 2)),
        abort(hello(), *events(3)),
    ]
    async with ScriptedServer(*script) as server:
        await hear_out(example, server, clock)

    asked = [parse_qs(urlsplit(path).query) for path in server.attempts]
    assert asked == [
        {},
        {"last_id": ["0"], "epoch": [EPOCH]},
        {"last_id": ["2"], "epoch": [EPOCH]},
        {"last_id": ["3"], "epoch": [EPOCH]},
    ]


async def test_a_query_of_its_own_stays(example):
    url = "ws://localhost/ws/events?token=a%20b"

    assert example.address(url, 0, None) == url
    assert example.address(url, 7, "x&y") == url + "&last_id=7&epoch=x%26y"


async def test_events_that_the_server_repeats_are_handed_over_once(example, clock):
    script = [
        close(1011, hello(), *events(1, 2, 2, 3)),
        close(1012, hello(), *events(1, 2, 3, 4)),
        abort(hello(recovered=False), *events(3, 4, 5)),
    ]
    async with ScriptedServer(*script) as server:
        heard, _ = await hear_out(example, server, clock)

    assert [m for m in heard if m["type"] == "event"] == events(1, 2, 3, 4, 5)


async def test_another_epoch_counts_from_one_again(example, clock):
    script = [
        close(1012, hello("old"), *events(1, 2)),
        close(1012, hello("new", recovered=False), *events(1, 2)),
    ]
    async with ScriptedServer(*script) as server:
        heard, _ = await hear_out(example, server, clock)

    lost = hello("new", recovered=False)
    assert heard == [hello("old"), *events(1, 2), lost, *events(1, 2)]
    assert server.attempts[-1].endswith("?last_id=2&epoch=new")


async def test_another_epoch_is_remembered_before_its_first_event(example, clock):
    script = [
        close(1012, hello("old"), *events(1, 2)),
        abort(hello("new", recovered=False)),
        abort(hello("new"), *events(1)),
    ]
    async with ScriptedServer(*script) as server:
        heard, _ = await hear_out(example, server, clock)

    asked = [urlsplit(path).query for path in server.attempts]
    assert asked[1:3] == ["last_id=2&epoch=old", "last_id=0&epoch=new"]
    assert [m for m in heard if m["type"] == "event"] == events(1, 2, 1)


async def test_two_events_may_hold_the_same(example, clock):
    same = [{"type": "event", "id": n, "data": "tick"} for n in (1, 2, 3)]
    script = [abort(hello(), *same[:2]), abort(hello(), same[2])]
    async with ScriptedServer(*script) as server:
        heard, _ = await hear_out(example, server, clock)

    assert [m for m in heard if m["type"] == "event"] == same


async def test_closing_the_iterator_closes_the_connection(example):
    async def stay(websocket):
        await websocket.send(json.dumps(hello()))
        await websocket.wait_closed()
        closed.set()

    closed = asyncio.Event()
    async with (
        ScriptedServer(stay) as server,
        aclosing(example.follow(server.url)) as messages,
    ):
        assert await anext(messages) == hello()
        await messages.aclose()
        await asyncio.wait_for(closed.wait(), 10)
    assert len(server.attempts) == 1


# With the server of the lesson


class Restartable:
    """The server of the lesson; a restart cuts all lines and empties its memory."""

    def __init__(self):
        self.start_again()

    def start_again(self):
        self.module = load(EXAMPLES / "resume_server.py")
        self.module.HISTORY = 3
        self.module.stream = self.module.Stream()

    async def __call__(self, scope, receive, send):
        await self.module.app(scope, receive, send)

    def cut(self, server):
        for connection in list(server.uvicorn.server_state.connections):
            connection.transport.abort()


@asynccontextmanager
async def following(module, url):
    """A queue of what the client hands over, while it comes back as soon as it can."""
    heard = asyncio.Queue()

    async def soon(seconds):
        await asyncio.sleep(0)

    async def follow():
        async for message in module.follow(url, sleep=soon):
            heard.put_nowait(message)

    task = asyncio.create_task(follow())
    yield heard
    task.cancel()
    await asyncio.wait([task])


@given(st.lists(st.sampled_from(["post", "post", "look", "cut", "restart"]), max_size=30))
@settings(derandomize=True, deadline=None, max_examples=40)
def test_whatever_happens_each_event_comes_once_or_its_loss_is_told(steps):
    asyncio.run(play(load(EXAMPLES / "reconnecting_client.py"), steps))


async def play(module, steps):
    app, numbers = Restartable(), itertools.count(1)
    posted, heard, lost = 0, 0, False  # the newest event of each kind

    async def look():
        """Take the next message; a gap is right where a loss was told, and only there."""
        nonlocal heard, lost
        message = await asyncio.wait_for(messages.get(), 10)
        if message["type"] == "hello":
            lost = lost or not message["recovered"]
        else:
            assert message["data"] == heard + 1 or (lost and message["data"] > heard)
            heard, lost = message["data"], False

    async with serve_here(app) as server:
        async with following(module, server.url + "/ws/events") as messages:
            await look()
            for step in [*steps, "post", "look"]:
                if step == "post":
                    posted = next(numbers)
                    app.module.stream.post(posted)
                elif step == "look" and app.module.stream.last_id:
                    while heard < posted:
                        await look()
                elif step in ("cut", "restart"):
                    if step == "restart":
                        app.start_again()
                    app.cut(server)
        assert await server.settled()
    assert messages.empty()


async def test_as_a_script_it_prints_events_and_why_it_ends(example):
    script = [
        close(1012, hello(), *events(1)),
        abort(hello(recovered=False), *events(1, 9)),
    ]
    async with ScriptedServer(*script) as server:
        program = (
            "import runpy, random; random.uniform = lambda low, high: 0.0\n"
            f"code = open({example.__file__!r}, encoding='utf-8').read()\n"
            f"code = code.replace({example.URL!r}, {server.url!r})\n"
            "exec(compile(code, 'reconnecting_client.py', 'exec'))"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=-1, stderr=-1
        )
        out, err = await process.communicate()

    assert out.decode().splitlines() == [
        "(connected; nothing is missing)",
        '1 "event 1"',
        "(no connection; next attempt in 0.0 s)",
        "(connected; some events are lost)",
        '9 "event 9"',
        "(no connection; next attempt in 0.0 s)",
    ]
    assert re.match("It is of no use to come back: .*4001", err.decode())
    assert process.returncode == 1
