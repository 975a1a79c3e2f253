"""The resume server keeps its contract, whatever its clients do."""

import asyncio
import itertools
import random
from pathlib import Path
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse
from hypothesis import example as tried_first
from hypothesis import given, settings
from hypothesis import strategies as st

from exercises.grader.clients import Conversation, http_client
from exercises.grader.serving import load, until
from exercises.grader.serving_here import serve_here

FILE = Path(__file__).parent.parent / "examples" / "resume_server.py"
PATH = "/ws/events"
LARGE = random.Random(14).randbytes(30 * 1024).hex()  # 60 KiB that deflate cannot shrink
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def http(server):
    async with http_client(server.http_url, timeout=30) as http:
        yield http


async def post(http, value):
    response = await http.post("/events", json={"data": value})
    assert response.status_code == 201
    return response.json()


def event(number, value):
    return {"type": "event", "id": number, "data": value}


def hello(example, recovered=True):
    return {"type": "hello", "epoch": example.EPOCH, "recovered": recovered}


def since(last_id, epoch=None):
    query = {"last_id": last_id} | ({"epoch": epoch} if epoch is not None else {})
    return f"{PATH}?{urlencode(query)}"


def keep_only(example, count):
    example.HISTORY = count
    example.stream = example.Stream()


# The conversation


async def test_a_post_is_answered_with_201_and_the_event(http):
    first = await http.post("/events", json={"data": {"price": 1.5}})
    second = await http.post("/events", json={"data": None})

    assert (first.status_code, first.json()) == (201, event(1, {"price": 1.5}))
    assert (second.status_code, second.json()) == (201, event(2, None))


async def test_everybody_hears_each_event_once_and_in_order(conversation, http, example):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    for n in range(1, 31):
        await post(http, n)

    for client in (ana, ben):
        await client.expect(hello(example))
        for n in range(1, 31):
            await client.expect(event(n, n))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        "",
        "žluťoučký kůň 🐎",
        "\u2028\x00",
        [],
        {},
        {"a": [1, {"b": None}]},
    ]
    + [10**400, 1e308, "</script>"],
)
async def test_an_event_holds_any_json(conversation, http, example, value):
    live = await conversation.join("live", PATH)

    await post(http, value)

    late = await conversation.join("late", PATH)
    for client in (live, late):
        await client.expect(hello(example))
        await client.expect(event(1, value))


async def test_a_newcomer_gets_all_that_is_kept(conversation, http, example):
    for n in range(1, 4):
        await post(http, n)

    ana = await conversation.join("ana", PATH)

    await ana.expect(hello(example, recovered=True))
    for n in range(1, 4):
        await ana.expect(event(n, n))


async def test_a_newcomer_learns_that_the_beginning_is_gone(conversation, http, example):
    keep_only(example, 2)
    for n in range(1, 4):
        await post(http, n)

    ana = await conversation.join("ana", PATH)

    await ana.expect(hello(example, recovered=False))
    await ana.expect(event(2, 2))
    await ana.expect(event(3, 3))


@pytest.mark.parametrize("leave", ["politely", "cut"])
async def test_a_client_that_comes_back_misses_nothing(conversation, http, example, leave):
    ana = await conversation.join("ana", PATH)
    await post(http, "one")
    await ana.expect(hello(example))
    await ana.expect(event(1, "one"))
    if leave == "cut":
        ana.vanish()
    else:
        await ana.leave()
    await post(http, "two")
    await post(http, "three")

    ana = await conversation.join("ana again", since(1, example.EPOCH))

    await ana.expect(hello(example, recovered=True))
    await ana.expect(event(2, "two"))
    await ana.expect(event(3, "three"))
    await post(http, "four")
    await ana.expect(event(4, "four"))


# Five events, of which 3, 4 and 5 are kept.
@pytest.mark.parametrize(
    ("last_id", "recovered", "replayed"),
    [
        (0, False, [3, 4, 5]),
        (1, False, [3, 4, 5]),
        (2, True, [3, 4, 5]),
        (3, True, [4, 5]),
        (4, True, [5]),
        (5, True, []),
        (6, False, [3, 4, 5]),
        (10**30, False, [3, 4, 5]),
    ],
)
@pytest.mark.parametrize("with_epoch", [True, False])
async def test_recovered_says_whether_something_is_missing(
    conversation, http, example, last_id, recovered, replayed, with_epoch
):
    keep_only(example, 3)
    for n in range(1, 6):
        await post(http, n)

    epoch = example.EPOCH if with_epoch else None
    ana = await conversation.join("ana", since(last_id, epoch))

    await ana.expect(hello(example, recovered))
    for n in replayed:
        await ana.expect(event(n, n))
    await post(http, "live")
    await ana.expect(event(6, "live"))


@pytest.mark.parametrize("last_id", [0, 1, 2, 3])
@pytest.mark.parametrize("epoch", ["", "another", "ž\n🐎"])
async def test_another_epoch_is_not_recovered_and_gets_all_that_is_kept(
    conversation, http, example, last_id, epoch
):
    await post(http, 1)
    await post(http, 2)

    ana = await conversation.join("ana", since(last_id, epoch))

    await ana.expect(hello(example, recovered=False))
    await ana.expect(event(1, 1))
    await ana.expect(event(2, 2))


async def test_every_process_is_an_epoch_of_its_own(example):
    assert load(FILE).EPOCH != example.EPOCH


async def test_two_tabs_resume_from_different_places(conversation, http, example):
    for n in range(1, 4):
        await post(http, n)

    first = await conversation.join("tab 1", since(1, example.EPOCH))
    second = await conversation.join("tab 2", since(3, example.EPOCH))
    await post(http, 4)

    for tab, ids in [(first, [2, 3, 4]), (second, [4])]:
        await tab.expect(hello(example))
        for n in ids:
            await tab.expect(event(n, n))


async def test_nothing_falls_between_replay_and_live(conversation, http, example):
    ids = range(1, 101)
    posting = asyncio.gather(*(post(http, "x") for _ in ids))

    crowd = [await conversation.join(f"client {n}", PATH) for n in range(20)]
    await posting

    for client in crowd:
        await client.expect(hello(example))
        for n in ids:
            await client.expect(event(n, "x"))


# Bad input


@pytest.mark.parametrize(
    "query",
    ["last_id=one", "last_id=-1", "last_id=1.5", "last_id=", "last_id=NaN", "last_id=1e3"]
    + ["last_id=" + "9" * 5000],
)
async def test_a_wrong_last_id_is_refused(conversation, query):
    await conversation.expect_refusal("ana", f"{PATH}?{query}")


BAD_BODIES = [
    '{"data": NaN}',
    '{"data": [1, Infinity]}',
    '{"data": {"a": -Infinity}}',
    '{"data": 1e999}',
    '{"data": "\\ud800"}',
    '{"data": {"\\udfff": 1}}',
    '{"data": ' + "[" * 500 + "]" * 500 + "}",
    '{"data": ' + "[" * 32_000 + "]" * 32_000 + "}",
    '{"data": ' + '{"a":' * 254 + "1" + "}" * 254 + "}",
    '{"data": ' + "[" * 60_000,
    "[" * 60_000,
    '{"data": ' + "1" * 5000 + "}",
    '{"data": [' + "1e15," * 13_000 + "1]}",  # 18 characters each, when they are written
    '{"data": "' + "x" * 65536 + '"}',
    '{"x": NaN}',
    "NaN",
    "{}",
    "[]",
    "null",
    '"data"',
    "{",
    "",
    b"\xff\xfe",
    b'{"data": "\xff"}',
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
async def test_what_is_no_event_is_refused_and_takes_no_number(
    conversation, http, example, body
):
    ana = await conversation.join("ana", PATH)

    answer = await http.post("/events", content=body, headers=JSON)

    assert answer.status_code == 422
    assert answer.json()["detail"]
    await post(http, "good")
    await ana.expect(hello(example))
    await ana.expect(event(1, "good"))


@pytest.mark.parametrize("depth", range(245, 260))
async def test_what_is_nested_deeply_is_sent_or_refused(conversation, http, example, depth):
    ana = await conversation.join("ana", PATH)
    await ana.expect(hello(example))
    for body in ["[" * depth + "]" * depth, '{"":' * depth + "1" + "}" * depth]:
        answer = await http.post("/events", content=f'{{"data": {body}}}', headers=JSON)

        assert answer.status_code in (201, 422)
        if answer.status_code == 201:
            await ana.expect(answer.json())
    await ana.expect(await post(http, "good"))


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_body_over_the_limit_is_413_before_it_is_read(
    conversation, http, server, example, in_pieces
):
    async def pieces():
        # Without a Content-Length, and without an end: only a server that stops reading
        # can answer this.
        while not any("POST" in line for line in server.lines):
            yield b"[]," * 10_000

    ana = await conversation.join("ana", PATH)
    body = pieces() if in_pieces else b'{"data": [' + b"[]," * 1_400_000 + b"1]}"

    answer = await http.post("/events", content=body, headers=JSON)

    assert answer.status_code == 413
    await ana.expect(hello(example))
    await ana.expect(await post(http, "good"))


async def test_the_largest_event_is_taken(conversation, http, example):
    largest = "x" * (example.LARGEST - 2)  # Two bytes are the quotes.

    await post(http, largest)

    ana = await conversation.join("ana", PATH)
    await ana.expect(hello(example))
    await ana.expect(event(1, largest))


async def test_a_client_that_floods_delays_nobody(conversation, http, example):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    await ana.expect(hello(example))

    flood = ben.push("x", times=20_000)
    while not flood.done():
        await ana.expect(await post(http, 1))
    await flood


async def test_messages_that_arrive_together_leave_the_others_a_turn(example):
    class Flood:
        count = 0

        async def receive(self):
            self.count += 1
            kind = "receive" if self.count < 1000 else "disconnect"
            return {"type": f"websocket.{kind}", "text": "x", "code": 1005}

        async def send_text(self, text):
            pass

    flood = Flood()
    member = example.Member(flood, [])
    await asyncio.sleep(0)

    assert flood.count == 1
    await member.talk()
    assert flood.count == 1000
    await member.close()


async def test_what_a_client_says_is_not_listened_to(conversation, http, example):
    ana = await conversation.join("ana", PATH)

    for text in ["hello", "", "{", '{"data": 1}', LARGE]:
        await ana.send(text)
    await post(http, 1)

    await ana.expect(hello(example))
    await ana.expect(event(1, 1))


async def test_a_binary_message_closes_its_sender_alone(conversation, http, example):
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH)
    await zoe.expect(hello(example))

    await zoe.send(b"\x00")

    await zoe.expect_close(1003, "text messages only")
    await post(http, 1)
    await ana.expect(hello(example))
    await ana.expect(event(1, 1))


# Faults


async def post_until(http, holds, readers):
    """Post large events until something holds; the readers must hear every one."""
    while not holds():
        posted = await post(http, LARGE)
        for reader in readers:
            await reader.expect(posted)


async def test_a_client_that_stops_reading_is_evicted_and_delays_nobody(
    conversation, http, example, server
):
    example.BACKLOG = 20
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    await conversation.join("zoe", PATH, reads=False)
    await ana.expect(hello(example))
    await ben.expect(hello(example))

    await post_until(http, lambda: len(example.stream.members) == 2, [ana, ben])

    assert await until(lambda: server.handlers == 2, 10.0)
    await post(http, "still here")


async def test_a_slow_reader_catches_up_and_misses_nothing(conversation, http, example):
    zoe = await conversation.join("zoe", PATH, reads=False)
    for n in range(example.BACKLOG):
        example.stream.post(f"{n} {LARGE[:16000]}")
        await asyncio.sleep(0)

    zoe.read_again()

    await zoe.expect(hello(example))
    for n in range(example.BACKLOG):
        await zoe.expect(event(n + 1, f"{n} {LARGE[:16000]}"))


async def test_an_evicted_client_resumes_and_misses_nothing(conversation, http, example):
    example.BACKLOG = 20
    example.CLOSE_TIMEOUT = 30.0
    zoe = await conversation.join("zoe", PATH, reads=False)
    await post_until(http, lambda: not example.stream.members, [])

    zoe.read_again()
    await zoe.expect(hello(example))
    last_id = 0
    while zoe.code is None:
        if await zoe.hears():
            last_id += 1

    assert (zoe.code, zoe.reason) == (1013, "reads too slowly")
    zoe = await conversation.join("zoe again", since(last_id, example.EPOCH))
    await zoe.expect(hello(example, recovered=True))
    for n in range(last_id + 1, example.stream.last_id + 1):
        await zoe.expect(event(n, LARGE))


async def test_a_long_replay_does_not_evict_who_reads(conversation, http, example):
    example.BACKLOG = 20
    for _ in range(100):
        example.stream.post(LARGE)

    ana = await conversation.join("ana", PATH, reads=False)
    for n in range(20):
        await post(http, n)
    ana.read_again()

    await ana.expect(hello(example))
    for n in range(1, 101):
        await ana.expect(event(n, LARGE))
    for n in range(20):
        await ana.expect(event(101 + n, n))


async def test_closing_a_client_that_does_not_read_takes_no_more_than_its_time(
    conversation, http, example, server
):
    example.CLOSE_TIMEOUT = 0.1
    for _ in range(100):
        example.stream.post(LARGE)
    zoe = await conversation.join("zoe", PATH, reads=False)

    await zoe.send(b"\x00")

    assert await server.settled()
    assert example.stream.members == set()


async def test_a_line_cut_during_an_eviction_leaves_no_trace(
    conversation, http, example, server
):
    example.BACKLOG = 20
    example.CLOSE_TIMEOUT = 30.0
    zoe = await conversation.join("zoe", PATH, reads=False)
    await post_until(http, lambda: not example.stream.members, [])

    zoe.vanish()

    assert await server.settled()


async def test_a_reset_while_the_server_sends_drops_nobody_else(
    conversation, http, example, server
):
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)
    await ana.expect(hello(example))
    members = example.stream.members

    await post_until(http, lambda: any(not m.queue.empty() for m in members), [ana])
    zoe.vanish()

    assert await until(lambda: len(members) == 1, 5.0)
    await ana.expect(await post(http, "still here"))


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.5)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, http, example):
    ana = await conversation.join("ana", PATH)
    await conversation.join("zoe", PATH, reads=False)
    await ana.expect(hello(example))

    assert await until(lambda: len(example.stream.members) == 1, 5.0)
    await ana.expect(await post(http, "still here"))


async def test_fifty_clients_come_and_go_during_a_broadcast(
    conversation, http, example, server
):
    ana = await conversation.join("ana", PATH)
    await ana.expect(hello(example))

    async def visit(n):
        visitor = await conversation.join(f"visitor {n}", PATH)
        await visitor.expect(hello(example))
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    visits = [asyncio.create_task(visit(n)) for n in range(50)]
    for n in range(1, 31):
        await post(http, n)
    await asyncio.gather(*visits)

    for n in range(1, 31):
        await ana.expect(event(n, n))
    assert await until(lambda: len(example.stream.members) == 1, 5.0)


async def test_no_more_than_the_history_is_kept(http, example):
    keep_only(example, 10)

    for n in range(30):
        await post(http, n)

    assert len(example.stream.kept) == 10


async def test_when_all_have_left_nobody_is_a_member(conversation, http, example, server):
    for n in range(10):
        client = await conversation.join(f"client {n}", PATH)
        await client.leave()

    assert await server.settled()
    assert example.stream.members == set()


async def test_ctrl_c_ends_it_while_events_flow(process):
    async with (
        Conversation(process.url) as conversation,
        http_client(process.http_url, timeout=30) as http,
    ):
        clients = [await conversation.join(f"client {n}", PATH) for n in range(5)]
        for n in range(50):
            await post(http, n)

        process.interrupt()

        process.wait()
        for client in clients:
            assert (await client.receive())["type"] == "hello"
            for n in range(50):
                await client.expect(event(n + 1, n))
            await client.expect_close(1012)
    assert "Traceback" not in process.log


# Any sequence of posts, cuts and restarts


class Restartable:
    """The example behind one address; a restart gives it an empty memory."""

    def __init__(self):
        self.restart()

    def restart(self):
        self.module = load(FILE)
        keep_only(self.module, 3)

    async def __call__(self, scope, receive, send):
        await self.module.app(scope, receive, send)


class Listener:
    """A client of the contract: it resumes, and writes down what was handed to it."""

    def __init__(self):
        self.connection = None
        self.epoch, self.last_id = None, 0
        self.heard = []

    async def come_back(self, conversation):
        path = PATH if self.epoch is None else since(self.last_id, self.epoch)
        self.connection = await conversation.join("listener", path)
        greeting = await self.connection.receive()
        if greeting["epoch"] != self.epoch:
            self.epoch, self.last_id = greeting["epoch"], 0
        return greeting["recovered"]

    def cut(self):
        if self.connection:
            self.connection.vanish()
        self.connection = None

    async def take(self, value):
        message = await self.connection.receive()
        self.last_id = message["id"]
        self.heard.append(message["data"])
        assert message["data"] == value


@given(st.lists(st.sampled_from(["post", "post", "take", "cut", "back", "restart"])))
@tried_first(["back", *["post"] * 5, "take", "cut", "back", "restart", "post", "back"])
@settings(derandomize=True, deadline=None, max_examples=50)
def test_each_event_comes_once_and_in_order_or_its_loss_is_told(steps):
    asyncio.run(play(steps))


async def play(steps):
    app, listener, numbers = Restartable(), Listener(), itertools.count(1)
    posted = []  # in this epoch
    owed = []  # to the listener
    async with serve_here(app) as server, Conversation(server.url) as conversation:
        for step in [*steps, "cut", "back"]:
            if step == "post":
                posted.append(next(numbers))
                owed.append(posted[-1])
                await app.module.post_event(app.module.NewEvent(data=posted[-1]))
            elif step == "take" and listener.connection and owed:
                await listener.take(owed.pop(0))
            elif step == "cut":
                listener.cut()
            elif step == "restart":
                listener.cut()
                app.restart()
                posted = []
                # A newcomer asks for nothing of a process that it never met.
                owed = owed if listener.epoch else []
            elif step == "back" and not listener.connection:
                kept = posted[-3:]
                stranger = listener.epoch not in (None, app.module.EPOCH)
                recovered = await listener.come_back(conversation)
                assert recovered is (not stranger and set(owed) <= set(kept))
                owed = [value for value in owed if value in kept]
        for value in owed:
            await listener.take(value)
    assert listener.heard == sorted(set(listener.heard))


# The page


async def test_a_page_that_comes_back_shows_what_it_missed(server, browser):
    tab = await browser.open(server.http_url)
    other = await browser.open(server.http_url)
    for page in (tab, other):
        await page.get_by_text("connected", exact=True).wait_for()

    async def post_from_other(text):
        await other.get_by_label("Event", exact=True).fill(text)
        await other.keyboard.press("Enter")

    await post_from_other("<b>one</b>")
    await tab.get_by_text('1: "<b>one</b>"', exact=True).wait_for()
    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_text("closed with code 1000 Disconnect button").wait_for()
    await post_from_other('{"two": 2}')
    await other.get_by_text('2: {"two":2}', exact=True).wait_for()
    await tab.get_by_role("button", name="Connect", exact=True).click()

    await tab.get_by_text('2: {"two":2}', exact=True).wait_for()
    assert await tab.get_by_text('1: "<b>one</b>"', exact=True).count() == 1
    assert await tab.get_by_text("nothing is missing").count() == 2


async def test_the_page_comes_back_by_itself_when_the_server_does(browser):
    app = Restartable()
    async with serve_here(app) as server:
        tab = await browser.open(server.http_url)
        await tab.get_by_text("nothing is missing").wait_for()
        app.module.stream.post("before")
        await tab.get_by_text('1: "before"').wait_for()

        app.restart()
        app.module.stream.post("after")
        for connection in list(server.uvicorn.server_state.connections):
            connection.transport.abort()

        await tab.get_by_text("closed with code 1006").wait_for()
        await tab.get_by_text("some events are lost").wait_for()
        await tab.get_by_text('1: "after"').wait_for()
        await tab.close()


async def test_the_page_shows_that_the_server_went_away_and_when_it_tries_again(
    process, browser
):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected, next attempt in").wait_for()
    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_text("not connected", exact=True).wait_for()
    await tab.close()
    browser.errors.clear()  # The console complains of each attempt in vain.


async def test_the_page_stays_away_after_4001(browser):
    app, attempts = FastAPI(), []

    @app.get("/")
    async def page():
        return FileResponse(FILE.with_suffix(".html"))

    @app.websocket("/ws/events")
    async def stay_away(websocket: WebSocket):
        attempts.append(websocket.url.query)
        await websocket.accept()
        await websocket.close(4001, "stay away")

    async with serve_here(app) as server:
        tab = await browser.open(server.http_url)
        await tab.get_by_text("closed with code 4001 stay away").wait_for()
        await tab.get_by_text("not connected", exact=True).wait_for()
        await tab.close()

    assert attempts == [""]
