"""The notification server keeps its contract, whatever its clients do."""

import asyncio
import random
import sqlite3
import threading
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiosqlite
import httpx2
import pytest
from fastapi.testclient import TestClient

from exercises.grader.clients import Conversation, http_client
from exercises.grader.serving import ServerProcess, until
from exercises.grader.serving_here import serve_here

EXAMPLE = Path(__file__).parent.parent / "examples" / "notification_server.py"
PATH = "/ws/notifications/ana"
LARGE = random.Random(11).randbytes(32 * 1024).hex()  # 64 KiB
ENOUGH = 150  # large messages; a stalled client's buffers hold about 60
MEBIBYTE = 1024 * 1024
LOCKED = "database is locked"
PATIENCE = 20.0  # seconds to wait for what may take a while on a busy machine


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The database of this test."""
    monkeypatch.setenv("NOTIFICATIONS_DB", str(tmp_path / "notifications.db"))
    return tmp_path / "notifications.db"


@pytest.fixture
def example(file, example):
    """The example on the database of this test; afterwards no thread of it is left."""
    before = set(threading.enumerate())
    yield example
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread


@pytest.fixture
async def http(server):
    async with http_client(server.http_url, timeout=60) as http:
        yield http


def ask(file, query, *parameters):
    """What another process would find in the database now."""
    with closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(query, parameters).fetchall()


def delivered(file):
    return [n for (n,) in ask(file, "SELECT id FROM notifications WHERE delivered")]


def plant(file, times, message=LARGE):
    """Put notifications for ana into the database, larger ones than may be posted."""
    rows = [("ana", message, datetime.now(UTC).isoformat())] * times
    with closing(sqlite3.connect(file)) as connection, connection:
        insert = "INSERT INTO notifications (user_id, message, created_at) VALUES (?, ?, ?)"
        connection.executemany(insert, rows)


async def notify(http, user, message):
    """Post a notification; returns the answer as JSON, and expects that it is one."""
    answer = await http.post(f"/users/{user}/notifications", json={"message": message})
    assert answer.status_code == 201
    return answer.json()


async def ids(client, times):
    """The ids of the next notifications that a client hears."""
    return [(await client.receive())["id"] for _ in range(times)]


async def test_a_notification_is_answered_and_heard_in_every_tab(conversation, http):
    tabs = [await conversation.join(f"tab {n}", PATH) for n in range(3)]

    stored = await notify(http, "ana", "hello")

    assert set(stored) == {"id", "message", "created_at"}
    assert stored["message"] == "hello"
    created_at = datetime.fromisoformat(stored["created_at"])
    assert created_at.utcoffset() == timedelta(0)
    for tab in tabs:
        await tab.expect(stored)


async def test_nobody_else_hears_it(conversation, http):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", "/ws/notifications/ben")

    for_ana = await notify(http, "ana", "hello ana")
    for_ben = await notify(http, "ben", "hello ben")

    await ana.expect(for_ana)
    await ben.expect(for_ben)
    assert for_ben["id"] > for_ana["id"]


async def test_what_came_while_the_user_was_away_is_heard_once_and_in_order(
    conversation, http
):
    missed = [await notify(http, "ana", f"message {n}") for n in range(10)]

    ana = await conversation.join("ana", PATH)
    for notification in missed:
        await ana.expect(notification)
    await ana.leave()

    again = await conversation.join("ana again", PATH)
    await again.expect(await notify(http, "ana", "news"))


async def test_it_survives_the_end_of_the_server(file):
    settings = {"NOTIFICATIONS_DB": str(file)}

    async def meet(post, expected):
        """Post something, or hear what was posted; then the server is killed."""
        with ServerProcess(EXAMPLE, environment=settings) as process:
            async with (
                Conversation(process.url) as conversation,
                http_client(process.http_url) as http,
            ):
                if post:
                    return await notify(http, "ana", post)
                ana = await conversation.join("ana", PATH)
                await ana.expect(expected)
                return await until(lambda: delivered(file) == [expected["id"]], 5)

    missed = await meet("hello", None)
    assert await meet(None, missed)
    news = await meet("news", None)
    assert news["id"] > missed["id"]
    with ServerProcess(EXAMPLE, environment=settings) as process:
        async with Conversation(process.url) as conversation:
            ana = await conversation.join("ana", PATH)
            await ana.expect(news)


async def test_a_notification_for_all_reaches_those_who_are_connected(conversation, http):
    ana = await conversation.join("ana", PATH)
    tab = await conversation.join("ana's other tab", PATH)
    ben = await conversation.join("ben", "/ws/notifications/ben")

    answer = await http.post("/notifications", json={"message": "hello all"})

    assert answer.status_code == 201
    first, second = answer.json()
    heard = await ana.receive()
    await tab.expect(heard)
    assert heard in (first, second)
    await ben.expect(second if heard == first else first)
    cyd = await conversation.join("cyd", "/ws/notifications/cyd")
    await cyd.expect(await notify(http, "cyd", "hello cyd"))


async def test_a_notification_for_all_when_nobody_is_there_is_kept_for_nobody(http, file):
    answer = await http.post("/notifications", json={"message": "anybody?"})

    assert (answer.status_code, answer.json()) == (201, [])
    assert ask(file, "SELECT * FROM notifications") == []


async def test_ping_is_answered_and_other_texts_are_not(conversation):
    ana = await conversation.join("ana", PATH)

    for text in ["Ping", "", "ping ", '{"message": "m"}', "\x00", LARGE, "ping"]:
        await ana.send(text)
    await ana.expect("pong")

    await ana.send("ping")
    await ana.expect("pong")


async def test_a_binary_message_closes_its_sender_alone(conversation, http):
    ana = await conversation.join("ana", PATH)
    tab = await conversation.join("ana's other tab", PATH)

    await tab.send(b"ping")

    await tab.expect_close(1003, "text messages only")
    await ana.expect(await notify(http, "ana", "still here"))


async def test_a_text_over_the_limit_closes_its_sender_alone(conversation, http, example):
    ana = await conversation.join("ana", PATH)
    tab = await conversation.join("ana's other tab", PATH)

    await tab.send("🐎" * example.LONGEST)
    await tab.send("ping")
    await tab.expect("pong")
    await tab.send("x" * (example.LONGEST + 1))

    await tab.expect_close(1009, "the text is too long")
    await ana.expect(await notify(http, "ana", "still here"))


async def test_messages_that_arrive_together_leave_the_others_a_turn(example):
    class Flood:
        count = 0

        async def receive(self):
            self.count += 1
            kind = "receive" if self.count < 1000 else "disconnect"
            return {"type": f"websocket.{kind}", "code": 1005, "text": "hello"}

    flood = Flood()
    reading = asyncio.create_task(example.answer(flood))
    await asyncio.sleep(0)

    assert flood.count == 1
    await asyncio.wait([reading])
    assert flood.count == 1000
    assert isinstance(reading.exception(), example.WebSocketDisconnect)


async def test_a_message_over_16_mebibytes_closes_its_sender_alone(conversation, http):
    ana = await conversation.join("ana", PATH)
    tab = await conversation.join("ana's other tab", PATH)

    tab.announce(16 * MEBIBYTE + 1)

    await tab.expect_close(1009)
    await ana.expect(await notify(http, "ana", "still here"))


async def test_only_the_newest_of_each_user_are_kept(conversation, http, example, file):
    example.KEPT = 3
    for_ben = await notify(http, "ben", "hello ben")

    missed = [await notify(http, "ana", f"message {n}") for n in range(10)]

    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", "/ws/notifications/ben")
    for notification in missed[-3:]:
        await ana.expect(notification)
    await ben.expect(for_ben)
    assert len(ask(file, "SELECT * FROM notifications WHERE user_id = 'ana'")) == 3


@pytest.mark.parametrize(
    "body",
    [
        '{"message": ""}',
        '{"message": null}',
        '{"message": 7}',
        '{"message": 1e999}',
        '{"message": NaN}',
        '{"message": "\\ud800"}',
        '{"message": "' + "x" * 1001 + '"}',
        '{"message": "' + "x" * MEBIBYTE + '"}',
        '{"text": "hello"}',
        '["hello"]',
        "hello",
        "",
        b"\xff",
        "[" * 10000,
        '{"message": ' + "9" * 5000 + "}",
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_a_bad_notification_is_kept_and_heard_by_nobody(
    conversation, http, file, body
):
    ana = await conversation.join("ana", PATH)
    json = {"Content-Type": "application/json"}

    for path in ["/users/ana/notifications", "/notifications"]:
        answer = await http.post(path, content=body, headers=json)
        # What is no JSON at all may be 400 or 422, depending on where the parser gives up.
        assert answer.status_code in (400, 413, 422)

    assert ask(file, "SELECT * FROM notifications") == []
    await ana.expect(await notify(http, "ana", "hello"))


@pytest.mark.parametrize(("size", "code"), [(0, 422), (1001, 422), (MEBIBYTE, 413)])
async def test_an_empty_message_and_a_long_one_are_refused(http, size, code):
    answer = await http.post("/users/ana/notifications", json={"message": "x" * size})

    assert answer.status_code == code


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_body_over_the_limit_is_413_before_it_is_read(http, server, in_pieces):
    async def pieces():
        # Without a Content-Length, and without an end: only a server that stops reading
        # can answer this.
        while not server.lines:
            yield b" " * 1024

    server.lines.clear()
    json = {"Content-Type": "application/json"}
    body = pieces() if in_pieces else b'{"message": "m"' + b" " * 60 * MEBIBYTE

    answer = await http.post("/users/ana/notifications", content=body, headers=json)

    assert answer.status_code == 413


@pytest.mark.parametrize("message", ["x" * 1000, "🐎" * 1000, "\x00", "'; DROP", "\n<b>"])
async def test_any_text_may_be_a_message(conversation, http, message):
    stored = await notify(http, "ana", message)
    assert stored["message"] == message

    ana = await conversation.join("ana", PATH)

    await ana.expect(stored)


@pytest.mark.parametrize("user", ["%0A", "%00", "'%3B--", "%F0%9F%90%8E", "%ED%A0%80"])
async def test_any_text_may_be_a_user(conversation, http, user):
    missed = await notify(http, user, "hello")

    client = await conversation.join("somebody", f"/ws/notifications/{user}")

    await client.expect(missed)
    await client.expect(await notify(http, user, "hello again"))


async def test_a_name_has_at_most_64_characters(conversation, http, server):
    name = "🐎" * 64
    client = await conversation.join("somebody", f"/ws/notifications/{name}")
    await client.expect(await notify(http, name, "hello"))

    await conversation.expect_refusal("mallory", f"/ws/notifications/{name}x", 403)
    answer = await http.post(f"/users/{name}x/notifications", json={"message": "hello"})

    assert answer.status_code == 422
    server.lines[:] = [line for line in server.lines if "without completing" not in line]


async def test_a_time_has_its_microseconds_on_the_whole_second_too(
    conversation, http, example, file, monkeypatch
):
    class Noon(datetime):
        @classmethod
        def now(cls, zone):
            return cls(2026, 1, 31, 12, tzinfo=zone)

    monkeypatch.setattr(example, "datetime", Noon)

    stored = await notify(http, "ana", "hello")

    assert stored["created_at"] == "2026-01-31T12:00:00.000000Z"
    ana = await conversation.join("ana", PATH)
    await ana.expect(stored)


@pytest.fixture
def impatient(example):
    """A server that waits only a moment for a locked database."""
    example.BUSY_TIMEOUT = 0.2


@pytest.fixture
def locked(file):
    """Another program that holds the database, from before the server starts."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


@pytest.fixture
def other(server, file):
    """Another program that has the database open, and may lock it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        yield connection


async def all_is_delivered(example):
    """Wait until each tab waits for news, and so does nothing with the database."""

    def waits():
        return all(news._waiters for tabs in example.tabs.values() for news in tabs)

    assert await until(lambda: example.tabs and waits(), PATIENCE)


def forget_warnings(server, text=LOCKED):
    """Take the warnings about the database out of the log; return how many there were."""
    warnings = [line for line in server.lines if text in line]
    server.lines[:] = [line for line in server.lines if text not in line]
    return len(warnings)


@pytest.mark.parametrize("lock", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
async def test_what_cannot_be_stored_is_503_and_heard_by_nobody(
    impatient, other, conversation, http, example, file, lock
):
    ana = await conversation.join("ana", PATH)
    await all_is_delivered(example)
    other.execute(lock)

    for path in ["/users/ana/notifications", "/notifications"]:
        answer = await http.post(path, json={"message": "hello"})
        assert answer.status_code == 503
        assert answer.json() == {"detail": "not stored: database is locked"}
        assert answer.headers["Retry-After"] == "5"

    other.execute("COMMIT")
    await ana.expect(await notify(http, "ana", "news"))
    assert len(ask(file, "SELECT * FROM notifications")) == 1


async def test_nobody_waits_for_a_locked_database_longer_than_alone(
    impatient, other, conversation, http
):
    other.execute("BEGIN EXCLUSIVE")
    begin = time.monotonic()
    posts = [
        http.post("/users/ana/notifications", json={"message": "hello"}) for _ in range(100)
    ]

    answers = await asyncio.gather(*posts)

    assert {answer.status_code for answer in answers} == {503}
    assert time.monotonic() - begin < 10  # One after the other: 20 seconds.


async def test_a_post_and_a_tab_wait_until_the_other_program_is_ready(
    example, other, conversation, http
):
    example.BUSY_TIMEOUT = 60
    missed = await notify(http, "ana", "missed")
    other.execute("BEGIN EXCLUSIVE")
    ana = await conversation.join("ana", PATH)
    request = asyncio.create_task(notify(http, "ana", "news"))
    # The event loop is free meanwhile.
    await ana.send("ping")
    await ana.expect("pong")
    assert not request.done()

    other.execute("COMMIT")

    await ana.expect(missed)
    await ana.expect(await request)


async def test_a_tab_that_opens_while_the_database_is_locked_gets_1013(
    impatient, other, conversation, http, server
):
    other.execute("BEGIN EXCLUSIVE")
    ana = await conversation.join("ana", PATH)

    await ana.expect_close(1013, LOCKED)

    assert forget_warnings(server) == 1
    other.execute("COMMIT")
    again = await conversation.join("ana again", PATH)
    await again.expect(await notify(http, "ana", "news"))


async def test_a_delivery_that_cannot_be_marked_ends_with_1013_and_comes_again(
    impatient, other, conversation, http, server
):
    missed = await notify(http, "ana", "missed")
    other.execute("BEGIN IMMEDIATE")
    ana = await conversation.join("ana", PATH)

    await ana.expect(missed)
    await ana.expect_close(1013, LOCKED)

    assert forget_warnings(server) == 1
    other.execute("COMMIT")
    again = await conversation.join("ana again", PATH)
    await again.expect(missed)


async def test_it_starts_while_the_database_is_locked_and_says_so(
    locked, impatient, server, conversation, http, file
):
    assert server.log.count(f"{file}: {LOCKED}; is another program using it?") == 1
    answer = await http.post("/users/ana/notifications", json={"message": "hello"})
    assert answer.status_code == 503
    ana = await conversation.join("ana", PATH)
    await ana.expect_close(1013, LOCKED)

    locked.execute("COMMIT")

    again = await conversation.join("ana again", PATH)
    assert await until(lambda: ask(file, "SELECT * FROM sqlite_master"), PATIENCE)
    await again.expect(await notify(http, "ana", "news"))
    assert forget_warnings(server) == 2


async def test_what_was_stored_is_201_though_nothing_can_be_forgotten(
    conversation, http, monkeypatch
):
    execute = aiosqlite.Connection.execute_fetchall

    async def forget_nothing(database, statement, parameters):
        if "DELETE" in statement:
            raise sqlite3.OperationalError("disk I/O error")
        return await execute(database, statement, parameters)

    ana = await conversation.join("ana", PATH)
    monkeypatch.setattr(aiosqlite.Connection, "execute_fetchall", forget_nothing)

    await ana.expect(await notify(http, "ana", "hello"))


async def test_a_database_that_fails_ends_the_tabs_and_is_logged(
    conversation, http, example, server, monkeypatch
):
    async def fail(*arguments):
        raise sqlite3.OperationalError("disk I/O error")

    ana = await conversation.join("ana", PATH)
    await ana.expect(await notify(http, "ana", "hello"))
    monkeypatch.setattr(aiosqlite.Connection, "execute_fetchall", fail)

    for news in example.tabs["ana"]:
        news.set()

    await ana.expect_close(1013, "disk I/O error")
    assert forget_warnings(server, "disk I/O error") == 1
    assert example.tabs == {}


async def test_a_delivery_that_fails_in_a_way_that_nobody_expected_is_logged(
    conversation, example, server, file, monkeypatch
):
    plant(file, 1)
    monkeypatch.setattr(example, "Notification", None)

    ana = await conversation.join("ana", PATH)

    await ana.expect_close(1006)
    assert await server.settled()
    assert "TypeError" in server.log
    server.lines.clear()
    assert example.tabs == {}


async def test_a_request_that_is_cancelled_is_heard_if_it_was_stored(
    example, file, monkeypatch
):
    execute = aiosqlite.Connection.execute_fetchall

    async def cancel(database, statement, parameters):
        if "INSERT" in statement:
            request.cancel()
        return await execute(database, statement, parameters)

    async def app(scope, receive, send):
        nonlocal request
        if scope["type"] == "http":
            request = asyncio.current_task()
        await example.app(scope, receive, send)

    request = None
    async with (
        serve_here(app) as server,
        Conversation(server.url) as conversation,
        http_client(server.http_url) as http,
    ):
        ana = await conversation.join("ana", PATH)
        await ana.send("ping")
        await ana.expect("pong")
        monkeypatch.setattr(aiosqlite.Connection, "execute_fetchall", cancel)
        answer = await http.post("/users/ana/notifications", json={"message": "hello"})

        assert answer.status_code == 500
        assert (await ana.receive())["message"] == "hello"


async def test_a_ping_that_fails_before_an_answer_leaves_no_trace(conversation, server):
    await conversation.join("ana", PATH)
    [connection] = server.uvicorn.server_state.connections

    # As it is after a failed ping, while older messages still have to be written: until
    # they are, uvicorn answers a send with RuntimeError.
    connection.close_sent = True
    connection.queue.put_nowait({"type": "websocket.receive", "text": "ping"})

    assert await server.settled()


def hasty(app):
    """One that lets no send take any time."""

    async def middleware(scope, receive, send):
        async def give_up(message):
            if message["type"] == "websocket.send":
                raise TimeoutError
            await send(message)

        await app(scope, receive, give_up)

    return middleware


async def test_a_send_that_a_middleware_gives_up_ends_the_connection(example):
    async with serve_here(hasty(example.app)) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana", PATH)
            await ana.send("ping")
            await ana.expect_close(1006)
        assert await server.settled()
    assert "ERROR" not in server.log
    assert example.tabs == {}


def test_a_client_of_fastapi_comes_and_leaves_quietly(example):
    with TestClient(example.app) as client:
        for _ in range(3):
            with client.websocket_connect(PATH) as ana:
                answer = client.post("/notifications", json={"message": "hello"})
                assert [ana.receive_json()] == answer.json()
                ana.send_text("hello")
    assert example.tabs == {}


async def test_two_tabs_that_open_at_once_hear_nothing_twice(conversation, http, file):
    plant(file, 50, "hello")

    first, second = await asyncio.gather(
        conversation.join("first tab", PATH), conversation.join("second tab", PATH)
    )
    news = await notify(http, "ana", "news")

    heard = []
    for tab in [first, second]:
        one = await ids(tab, 1)
        while one[-1] != news["id"]:
            one += await ids(tab, 1)
        # A tab begins where the deliveries to its user are, and from there hears all.
        assert one == list(range(one[0], 52))
        heard += one
    assert set(heard) == set(range(1, 52))
    third = await conversation.join("third tab", PATH)
    await third.expect(await notify(http, "ana", "more news"))


async def test_a_tab_that_leaves_during_a_delivery_loses_and_repeats_nothing(
    conversation, server, file
):
    plant(file, ENOUGH)
    leaver = await conversation.join("leaver", PATH)

    heard = await ids(leaver, 3)
    await leaver.leave()
    while await leaver.hears():
        heard.append(heard[-1] + 1)

    assert await server.settled()
    ana = await conversation.join("ana", PATH)
    assert heard + await ids(ana, ENOUGH - len(heard)) == list(range(1, ENOUGH + 1))


async def test_a_tab_that_vanishes_during_a_delivery_costs_only_what_was_sent_to_it(
    conversation, example, server, file
):
    plant(file, ENOUGH)
    zoe = await conversation.join("zoe", PATH, reads=False)
    looks = []

    def stalled():
        """Whether nothing more was delivered for a while."""
        looks.append(len(delivered(file)))
        return looks[-1] > 10 and looks[-20:] == looks[-1:] * 20

    assert await until(stalled, 20)
    zoe.vanish()
    assert await server.settled()
    sent = delivered(file)

    assert len(sent) < ENOUGH
    ana = await conversation.join("ana", PATH)
    assert sent + await ids(ana, ENOUGH - len(sent)) == list(range(1, ENOUGH + 1))


async def test_a_tab_that_stops_reading_is_evicted_and_delays_nobody(
    conversation, example, http, file
):
    example.SEND_TIMEOUT = 1.0
    example.CLOSE_TIMEOUT = 0.1
    example.KEPT = 2 * ENOUGH
    plant(file, ENOUGH)
    zoe = await conversation.join("zoe", PATH, reads=False)
    ana = await conversation.join("ana", PATH)

    stored = await notify(http, "ana", "hello")
    heard = []
    while heard[-1:] != [stored["id"]]:
        heard += await ids(ana, 1)

    assert heard == list(range(heard[0], stored["id"] + 1))
    assert await until(lambda: len(example.tabs["ana"]) == 1, 10)
    await ana.expect(await notify(http, "ana", "still here"))
    zoe.read_again()
    while await zoe.hears():
        pass
    assert zoe.code in (1006, 1013)


async def test_an_evicted_tab_that_still_reads_gets_1013(
    conversation, example, file, monkeypatch
):
    example.SEND_TIMEOUT = 0.1
    example.CLOSE_TIMEOUT = 60
    closing, close = asyncio.Event(), example.close

    async def watched_close(*arguments):
        closing.set()
        await close(*arguments)

    monkeypatch.setattr(example, "close", watched_close)
    plant(file, ENOUGH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    async with asyncio.timeout(20):
        await closing.wait()
    zoe.read_again()

    while await zoe.hears():
        pass
    assert (zoe.code, zoe.reason) == (1013, "reads too slowly")


async def test_a_reset_while_the_server_sends_drops_nobody_else(
    conversation, example, http, file
):
    example.KEPT = 2 * ENOUGH
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)
    plant(file, ENOUGH)
    news = await notify(http, "ana", "hello")

    await ids(ana, ENOUGH)
    zoe.vanish()

    await ana.expect(news)
    assert await until(lambda: len(example.tabs["ana"]) == 1, 5)
    await ana.expect(await notify(http, "ana", "still here"))


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=1.0)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, example, http):
    ana = await conversation.join("ana", PATH)
    await conversation.join("zoe", PATH, reads=False)
    await ana.send("not a ping")

    assert await until(lambda: len(example.tabs["ana"]) == 1, 10)
    await ana.expect(await notify(http, "ana", "still here"))


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.5)
async def test_a_stalled_tab_that_the_pings_gave_up_leaves_the_log_quiet(
    conversation, server, file
):
    plant(file, ENOUGH)
    zoe = await conversation.join("zoe", PATH, reads=False)
    [connection] = server.uvicorn.server_state.connections

    assert await until(lambda: connection.close_sent, 10)
    zoe.read_again()

    while await zoe.hears():
        pass
    assert await server.settled()


async def test_fifty_tabs_come_and_go_during_the_notifications(
    conversation, example, http, server
):
    ana = await conversation.join("ana", PATH)

    async def visit(n):
        visitor = await conversation.join(f"visitor {n}", PATH)
        await visitor.send("ping")
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    visits = [asyncio.create_task(visit(n)) for n in range(50)]
    posted = [await notify(http, "ana", f"message {n}") for n in range(50)]
    await asyncio.gather(*visits)

    for notification in posted:
        await ana.expect(notification)
    assert await until(lambda: server.handlers == 1, 5)
    assert len(example.tabs["ana"]) == 1


async def test_a_hundred_posts_at_once_are_all_heard_in_the_order_of_their_ids(
    conversation, http
):
    ana = await conversation.join("ana", PATH)

    posted = await asyncio.gather(*(notify(http, "ana", f"{n}") for n in range(100)))

    for notification in sorted(posted, key=lambda notification: notification["id"]):
        await ana.expect(notification)


async def test_the_last_tab_leaves_nothing_behind(conversation, server, http, example):
    tabs = [await conversation.join(f"tab {n}", PATH) for n in range(4)]
    for tab in tabs[:2]:
        await tab.leave(4000, "lunch")
        assert (tab.code, tab.reason) == (4000, "lunch")
    for tab in tabs[2:]:
        tab.vanish()

    assert await server.settled()
    await notify(http, "ana", "hello")
    assert example.tabs == {}


async def test_ctrl_c_ends_it_amid_the_traffic(process):
    async with (
        Conversation(process.url) as conversation,
        http_client(process.http_url) as http,
    ):
        tabs = [await conversation.join(f"tab {n}", PATH) for n in range(5)]

        async def keep_notifying():
            with suppress(httpx2.TransportError):
                while True:
                    await notify(http, "ana", "hello")

        traffic = asyncio.create_task(keep_notifying())
        for tab in tabs:
            await tab.receive()
        process.interrupt()

        await asyncio.to_thread(process.wait)
        await traffic
        for tab in tabs:
            while await tab.hears():
                pass
            assert tab.code == 1012
    assert "Traceback" not in process.log


@pytest.mark.parametrize("reload", [[], ["--reload"]], ids=["alone", "with --reload"])
async def test_ctrl_c_ends_it_while_a_client_floods_and_does_not_read(file, reload):
    settings = {"NOTIFICATIONS_DB": str(file)}
    options = ["--timeout-graceful-shutdown=1", *reload]
    with ServerProcess(EXAMPLE, options=options, environment=settings) as process:
        assert await until(lambda: "startup complete" in process.log, PATIENCE)
        async with Conversation(process.url) as conversation:
            # Its deliveries fill all buffers, and then it is not read either.
            plant(file, ENOUGH)
            zoe = await conversation.join("zoe", PATH, reads=False)
            pushing = zoe.push("ping", times=1_000_000)
            ana = await conversation.join("ana", "/ws/notifications/ana2")
            for _ in range(100):
                await ana.send("ping")
                await ana.expect("pong")
            assert not pushing.done()

            process.interrupt()

            await asyncio.to_thread(process.wait)
            await ana.expect_close(1012)


async def test_the_page_notifies_both_tabs(server, browser):
    tabs = [await browser.open(server.http_url) for _ in range(2)]
    for tab in tabs:
        await tab.get_by_text("connected", exact=True).wait_for()
    await tabs[1].get_by_role("button", name="Ping").click()
    await tabs[1].get_by_text("pong", exact=True).wait_for()

    await tabs[0].get_by_label("Message", exact=True).fill("<b>hello</b>")
    await tabs[0].keyboard.press("Enter")
    for tab in tabs:
        await tab.get_by_text('{"id":1,"message":"<b>hello</b>"').last.wait_for()
    await tabs[0].get_by_label("Message", exact=True).fill("hello all")
    await tabs[0].get_by_role("button", name="Notify everybody").click()

    for tab in tabs:
        await tab.get_by_text('{"id":2,"message":"hello all"').last.wait_for()


async def test_the_page_shows_what_came_while_it_was_away(server, browser):
    tab = await browser.open(server.http_url)
    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_text("closed with code 1000 Disconnect button").wait_for()
    await tab.get_by_label("User", exact=True).fill("ben")
    await tab.get_by_label("Recipient", exact=True).fill("ben")
    await tab.get_by_label("Message", exact=True).fill("hello ben")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("HTTP 201").wait_for()

    await tab.get_by_role("button", name="Connect", exact=True).click()

    await tab.get_by_text('{"id":1,"message":"hello ben"').nth(1).wait_for()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
