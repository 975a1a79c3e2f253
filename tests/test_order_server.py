"""The order server keeps its contract, whatever its clients and its database do."""

import asyncio
import random
import sqlite3
import threading
import time
from contextlib import closing, suppress

import aiosqlite
import httpx2
import pytest

from exercises.grader.clients import Conversation, http_client
from exercises.grader.serving import until
from exercises.grader.serving_here import serve_here

PATH = "/ws/user_1"  # orders 1 and 2 are user 1's, order 3 is user 2's
STATUSES = ["pending", "paid", "shipped", "delivered", "cancelled"]
LARGE = random.Random(12).randbytes(32 * 1024).hex()  # 64 KiB
MEBIBYTE = 1024 * 1024


def update(order_id, status):
    return {"type": "order_update", "order_id": order_id, "status": status}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The database of this test."""
    monkeypatch.setenv("ORDERS_DB", str(tmp_path / "orders.db"))
    return tmp_path / "orders.db"


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
    # Of a thousand requests, the last waits for all before it, however long they take.
    async with http_client(server.http_url, timeout=None) as http:
        yield http


def ask(file, query, *parameters):
    """What another process would find in the database now."""
    with closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(query, parameters).fetchall()


def status_of(file, order_id):
    return ask(file, "SELECT status FROM orders WHERE id = ?", order_id)[0][0]


async def change(http, order_id, status):
    return await http.post(f"/orders/{order_id}/status", json={"status": status})


async def test_a_change_is_stored_answered_and_heard(conversation, http, file):
    ana = await conversation.join("ana", PATH)

    for status in STATUSES:
        answer = await change(http, 1, status)

        assert answer.status_code == 200
        assert answer.json() == {"order_id": 1, "status": status}
        await ana.expect(update(1, status))
        assert status_of(file, 1) == status


async def test_only_the_room_of_the_owner_hears_it(conversation, http):
    ana = await conversation.join("ana", "/ws/user_1")
    tab = await conversation.join("ana's other tab", "/ws/user_1")
    ben = await conversation.join("ben", "/ws/user_2")
    zoe = await conversation.join("zoe", "/ws/user_3")

    await change(http, 1, "paid")
    await change(http, 3, "shipped")
    await change(http, 2, "cancelled")

    for client in [ana, tab]:
        await client.expect(update(1, "paid"))
        await client.expect(update(2, "cancelled"))
    await ben.expect(update(3, "shipped"))
    await zoe.leave()
    await zoe.expect_close(1000)


async def test_the_name_of_a_room_has_at_most_80_characters(conversation):
    await conversation.join("ana", "/ws/" + "a" * 80)
    await conversation.expect_refusal("ben", "/ws/" + "b" * 81)


@pytest.mark.parametrize("order_id", [0, -1, 4, 2**63 - 1, 2**63, -(2**63) - 1, 10**30])
async def test_an_unknown_order_is_404_and_nobody_hears(conversation, http, order_id):
    ana = await conversation.join("ana", PATH)

    answer = await change(http, order_id, "paid")

    assert answer.status_code == 404
    await change(http, 1, "shipped")
    await ana.expect(update(1, "shipped"))


@pytest.mark.parametrize(
    "body",
    [
        '{"status": "lost"}',
        '{"status": ""}',
        '{"status": null}',
        '{"status": 1e999}',
        '{"status": NaN}',
        '{"status": "\\ud800"}',
        '{"state": "paid"}',
        '["paid"]',
        "paid",
        "",
        b"\xff",
        "[" * 1000,
        '{"status": ' + "9" * 900 + "}",
        '{"status": "' + "x" * MEBIBYTE + '"}',
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_a_bad_status_changes_nothing_and_nobody_hears(
    conversation, http, file, body
):
    ana = await conversation.join("ana", PATH)
    json = {"Content-Type": "application/json"}

    answer = await http.post("/orders/1/status", content=body, headers=json)

    # What is no JSON at all may be 400 or 422, depending on where the parser gives up.
    assert answer.status_code in (400, 413, 422)
    assert status_of(file, 1) == "pending"
    await change(http, 2, "paid")
    await ana.expect(update(2, "paid"))


async def test_an_unknown_status_is_422(http):
    assert (await change(http, 1, "lost")).status_code == 422
    assert (await change(http, 4, "lost")).status_code == 422
    assert (await change(http, 1, "x" * MEBIBYTE)).status_code == 413


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_body_over_the_limit_is_413_before_it_is_read(http, server, in_pieces):
    async def pieces():
        # Without a Content-Length, and without an end: only a server that stops reading
        # can answer this.
        while not server.lines:
            yield b" " * 1024

    server.lines.clear()
    json = {"Content-Type": "application/json"}
    body = pieces() if in_pieces else b'{"status": "paid"' + b" " * 60 * MEBIBYTE

    answer = await http.post("/orders/1/status", content=body, headers=json)

    assert answer.status_code == 413


@pytest.mark.parametrize("order_id", ["seven", "1.5", "9" * 5000, "1%00", "%0A"])
async def test_an_order_id_that_is_no_integer_is_422(http, order_id):
    answer = await change(http, order_id, "paid")

    assert answer.status_code == 422


@pytest.fixture
def impatient(example):
    """A server that waits only a moment for a locked database."""
    example.BUSY_TIMEOUT = 0.2


@pytest.fixture
def reader(impatient, server, file):
    """Another process that reads the database, so that no commit succeeds meanwhile."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM orders").fetchall()
        yield connection


def forget_errors(server):
    """Take the warning about a locked database out of the log."""
    server.lines[:] = [line for line in server.lines if "database is locked" not in line]


async def test_nobody_hears_of_a_change_whose_commit_failed(
    reader, conversation, http, file
):
    ana = await conversation.join("ana", PATH)

    answer = await change(http, 1, "paid")
    reader.execute("COMMIT")

    assert answer.status_code == 503
    assert answer.json() == {"detail": "nothing was changed: database is locked"}
    assert answer.headers["Retry-After"] == "5"
    assert (await change(http, 2, "shipped")).status_code == 200
    await ana.expect(update(2, "shipped"))
    assert (status_of(file, 1), status_of(file, 2)) == ("pending", "shipped")


@pytest.fixture
def locked(file):
    """Another program that holds the database, from before the server starts."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


async def test_nobody_waits_for_a_locked_database_longer_than_alone(
    impatient, conversation, http, file
):
    ana = await conversation.join("ana", PATH)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        begin = time.monotonic()
        answers = await asyncio.gather(*(change(http, 1, "paid") for _ in range(100)))
        took = time.monotonic() - begin

    assert {answer.status_code for answer in answers} == {503}
    assert took < 10  # One after the other, they would wait for 20 seconds.
    await change(http, 2, "shipped")
    await ana.expect(update(2, "shipped"))


async def test_a_change_waits_until_the_other_program_is_ready(conversation, http, file):
    ana = await conversation.join("ana", PATH)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        request = asyncio.create_task(change(http, 1, "paid"))
        # The event loop is free meanwhile.
        assert (await http.get("/")).status_code == 200
        assert not request.done()

    assert (await request).status_code == 200
    await ana.expect(update(1, "paid"))


async def test_it_starts_while_the_database_is_locked_and_says_so(
    locked, impatient, server, conversation, http, file
):
    said = f"{file}: database is locked; is another program using it?"
    assert server.log.count(said) == 1
    assert (await change(http, 1, "paid")).status_code == 503
    ana = await conversation.join("ana", PATH)

    locked.execute("COMMIT")

    assert (await change(http, 1, "shipped")).status_code == 200
    await ana.expect(update(1, "shipped"))
    assert status_of(file, 1) == "shipped"
    forget_errors(server)


async def test_a_request_that_is_cancelled_leaves_no_change_half_done(
    example, file, monkeypatch
):
    commit, may_commit = aiosqlite.Connection.commit, asyncio.Event()

    async def commit_later(connection):
        request.cancel()
        await may_commit.wait()
        await commit(connection)

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
        monkeypatch.setattr(aiosqlite.Connection, "commit", commit_later)
        assert (await change(http, 1, "paid")).status_code == 500
        monkeypatch.setattr(aiosqlite.Connection, "commit", commit)
        may_commit.set()

        await ana.expect(update(1, "paid"))
        assert status_of(file, 1) == "paid"
        assert (await change(http, 2, "paid")).status_code == 200


async def test_a_failed_commit_takes_no_other_change_with_it(
    conversation, http, file, monkeypatch
):
    ben = await conversation.join("ben", "/ws/user_2")
    commit, failures = aiosqlite.Connection.commit, ["database is locked"]

    async def fail_once(connection):
        if failures:
            raise sqlite3.OperationalError(failures.pop())
        await commit(connection)

    monkeypatch.setattr(aiosqlite.Connection, "commit", fail_once)
    answers = await asyncio.gather(*(change(http, n, "paid") for n in [1, 2, 3]))

    codes = [answer.status_code for answer in answers]
    assert sorted(codes) == [200, 200, 503]
    for n, code in enumerate(codes, start=1):
        assert status_of(file, n) == ("paid" if code == 200 else "pending")
    if codes[2] == 200:
        await ben.expect(update(3, "paid"))
    await change(http, 3, "cancelled")
    await ben.expect(update(3, "cancelled"))


async def test_the_change_is_committed_before_anybody_hears_of_it(conversation, http, file):
    ana = await conversation.join("ana", PATH)

    for n in range(50):
        request = asyncio.create_task(change(http, 1, STATUSES[n % 5]))
        message = await ana.receive()
        assert status_of(file, 1) == message["status"] == STATUSES[n % 5]
        await request


async def test_a_thousand_updates_at_once_are_heard_in_the_order_of_their_commits(
    example, conversation, http, file
):
    example.BUSY_TIMEOUT = 60
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", "/ws/user_2")
    # The database itself writes down what it commits, in order.
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("""
            CREATE TABLE history (id INTEGER PRIMARY KEY, order_id, status);
            CREATE TRIGGER remember AFTER UPDATE ON orders BEGIN
                INSERT INTO history (order_id, status) VALUES (new.id, new.status);
            END;
        """)
    dice = random.Random(12)
    changes = [(dice.randint(1, 3), dice.choice(STATUSES)) for _ in range(1000)]

    answers = await asyncio.gather(*(change(http, *one) for one in changes))

    assert {answer.status_code for answer in answers} == {200}
    history = ask(file, "SELECT order_id, status FROM history ORDER BY id")
    assert sorted(history) == sorted(changes)
    for order_id, status in history:
        await (ben if order_id == 3 else ana).expect(update(order_id, status))


async def test_what_clients_say_is_ignored(conversation, http):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    for saying in ["hello", "", b"\x00\x01", update(1, "paid"), "x" * MEBIBYTE]:
        await ana.send(saying)
    await change(http, 1, "shipped")

    await ana.expect(update(1, "shipped"))
    await ben.expect(update(1, "shipped"))


async def test_a_client_that_floods_delays_nobody(conversation, http):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    flood = ben.push("x", times=20_000)
    while not flood.done():
        await change(http, 1, "paid")
        await ana.expect(update(1, "paid"))
        await ben.expect(update(1, "paid"))
    await flood


async def test_messages_that_arrive_together_leave_the_others_a_turn(example):
    class Flood:
        count = 0

        async def receive(self):
            self.count += 1
            kind = "receive" if self.count < 1000 else "disconnect"
            return {"type": f"websocket.{kind}", "code": 1005}

        async def send_text(self, text):
            pass

    flood = Flood()
    member = example.Member(flood)
    await asyncio.sleep(0)

    assert flood.count == 1
    await member.talk()
    assert flood.count == 1000
    await member.close()


async def test_a_message_over_16_mebibytes_closes_its_sender_alone(conversation, http):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    ana.announce(16 * MEBIBYTE + 1)

    await ana.expect_close(1009)
    await change(http, 1, "paid")
    await ben.expect(update(1, "paid"))


async def test_leaving_politely_or_not_leaves_no_room_behind(
    conversation, server, http, example
):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", "/ws/user_2")
    zoe = await conversation.join("zoe", "/ws/user_2")

    await ana.leave(4000, "lunch")
    ben.vanish()
    zoe.vanish()

    assert (ana.code, ana.reason) == (4000, "lunch")
    assert await server.settled()
    assert (await change(http, 1, "paid")).status_code == 200
    assert example.rooms == {}


async def tell_until(example, condition, ana):
    """Send large messages to the room until something is so; Ana must hear every one.

    An update is too short to fill the buffers in a test's time; this is the same way.
    """
    while not condition():
        example.broadcast(example.rooms["user_1"], LARGE)
        await ana.expect(LARGE)


async def test_a_client_that_stops_reading_is_evicted_and_delays_nobody(
    conversation, example, http, server
):
    example.BACKLOG = 20
    example.CLOSE_TIMEOUT = 0.1
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    await tell_until(example, lambda: len(example.rooms["user_1"]) == 1, ana)

    await change(http, 1, "paid")
    await ana.expect(update(1, "paid"))
    assert await until(lambda: server.handlers == 1, 5)
    zoe.read_again()
    heard = 0
    while await zoe.hears():
        heard += 1
    assert heard > 10
    assert zoe.code in (1006, 1013)


async def test_an_evicted_client_that_still_reads_gets_1013(conversation, example):
    example.BACKLOG = 20
    example.CLOSE_TIMEOUT = 60
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    await tell_until(example, lambda: len(example.rooms["user_1"]) == 1, ana)
    zoe.read_again()

    while await zoe.hears():
        pass
    assert (zoe.code, zoe.reason) == (1013, "reads too slowly")


async def test_an_evicted_client_that_vanishes_leaves_the_log_quiet(
    conversation, example, server
):
    example.BACKLOG = 20
    example.CLOSE_TIMEOUT = 60
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    await tell_until(example, lambda: len(example.rooms["user_1"]) == 1, ana)
    zoe.vanish()

    await ana.leave()
    assert await server.settled()


async def test_a_slow_reader_catches_up_and_misses_nothing(conversation, example):
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    for n in range(example.BACKLOG):
        example.broadcast(example.rooms["user_1"], f"{n} {LARGE[:16000]}")
        await ana.expect(f"{n} {LARGE[:16000]}")
    zoe.read_again()

    for n in range(example.BACKLOG):
        await zoe.expect(f"{n} {LARGE[:16000]}")


async def test_a_reset_while_the_server_sends_drops_nobody_else(
    conversation, example, http
):
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    def zoes_writer_waits():
        return any(not member.queue.empty() for member in example.rooms["user_1"])

    await tell_until(example, zoes_writer_waits, ana)
    zoe.vanish()

    assert await until(lambda: len(example.rooms["user_1"]) == 1, 5)
    await change(http, 1, "paid")
    await ana.expect(update(1, "paid"))


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=1.0)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, example, http):
    ana = await conversation.join("ana", PATH)
    await conversation.join("zoe", PATH, reads=False)
    await ana.send("hello")

    assert await until(lambda: len(example.rooms["user_1"]) == 1, 10)
    await change(http, 1, "paid")
    await ana.expect(update(1, "paid"))


async def test_fifty_clients_come_and_go_during_the_updates(
    conversation, example, http, server
):
    ana = await conversation.join("ana", PATH)

    async def visit(n):
        visitor = await conversation.join(f"visitor {n}", PATH)
        await visitor.send("just passing")
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    visits = [asyncio.create_task(visit(n)) for n in range(50)]
    for n in range(50):
        await change(http, 1, STATUSES[n % 5])
    await asyncio.gather(*visits)

    for n in range(50):
        await ana.expect(update(1, STATUSES[n % 5]))
    assert await until(lambda: server.handlers == 1, 5)
    assert len(example.rooms["user_1"]) == 1


async def test_the_orders_outlive_the_server_and_are_made_only_once(example, file):
    async def once(order_id):
        async with (
            serve_here(example.app) as server,
            http_client(server.http_url) as http,
        ):
            return (await change(http, order_id, "paid")).status_code

    assert await once(1) == 200
    ask(file, "DELETE FROM orders WHERE id = 2")

    assert await once(2) == 404
    orders = ask(file, "SELECT id, user_id, status FROM orders ORDER BY id")
    assert orders == [(1, 1, "paid"), (3, 2, "pending")]


async def test_two_servers_may_make_the_table_at_once(example, file, monkeypatch):
    execute, both = aiosqlite.Connection.executescript, asyncio.Barrier(2)

    async def execute_together(connection, script):
        await both.wait()
        return await execute(connection, script)

    monkeypatch.setattr(aiosqlite.Connection, "executescript", execute_together)

    async def once():
        async with serve_here(example.app), both:
            pass

    await asyncio.gather(once(), once())

    assert ask(file, "SELECT id FROM orders ORDER BY id") == [(1,), (2,), (3,)]


async def test_orders_that_were_deleted_do_not_come_back(http, file):
    ask(file, "DELETE FROM orders")

    assert (await change(http, 1, "paid")).status_code == 404
    assert ask(file, "SELECT * FROM orders") == []


async def test_ctrl_c_ends_it_amid_the_traffic(process):
    async with (
        Conversation(process.url) as conversation,
        http_client(process.http_url) as http,
    ):
        clients = [await conversation.join(f"client {n}", PATH) for n in range(5)]

        async def keep_changing():
            with suppress(httpx2.TransportError):
                while True:
                    await change(http, 1, "paid")

        traffic = asyncio.create_task(keep_changing())
        for client in clients:
            await client.expect(update(1, "paid"))
        process.interrupt()

        await asyncio.to_thread(process.wait)
        await traffic
        for client in clients:
            while await client.hears():
                pass
            assert client.code == 1012
    assert "Traceback" not in process.log


async def test_the_page_tells_both_tabs_of_a_change(server, browser):
    tabs = [await browser.open(server.http_url) for _ in range(2)]
    for tab in tabs:
        await tab.get_by_text("connected", exact=True).wait_for()

    await tabs[0].get_by_label("Status", exact=True).select_option("shipped")
    await tabs[0].get_by_role("button", name="Change the status").click()

    await tabs[0].get_by_text('HTTP 200 {"order_id":1,"status":"shipped"}').wait_for()
    for tab in tabs:
        told = '{"type":"order_update","order_id":1,"status":"shipped"}'
        await tab.get_by_text(told, exact=True).wait_for()


async def test_the_page_joins_another_room_and_shows_an_error(server, browser):
    tab = await browser.open(server.http_url)
    await tab.get_by_role("button", name="Disconnect").click()
    await tab.get_by_text("closed with code 1000 Disconnect button").wait_for()

    await tab.get_by_label("Room", exact=True).fill("user_2")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("connected", exact=True).wait_for()
    await tab.get_by_label("Order", exact=True).fill("7")
    await tab.keyboard.press("Enter")
    await tab.get_by_text('HTTP 404 {"detail":"no such order"}').wait_for()
    browser.errors.clear()
    await tab.get_by_label("Order", exact=True).fill("3")
    await tab.keyboard.press("Enter")

    await tab.get_by_text('"type":"order_update","order_id":3').wait_for()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
