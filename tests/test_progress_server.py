"""The progress server keeps its contract, whatever its clients do."""

import asyncio
import hashlib
import threading

import pytest
from fastapi.testclient import TestClient

from exercises.grader.clients import Conversation, http_client
from exercises.grader.serving import until
from exercises.grader.serving_here import serve_here

PATH = "/ws/stream_progress"
MEBIBYTE = 1024 * 1024


@pytest.fixture
def example(example):
    """The example with a job that is done in no time."""
    example.BLOCK, example.TENTH = b"block", 3
    return example


class Gate:
    """Stands in for the hash: its work goes on only as far as a test lets it."""

    def __init__(self):
        self.calls = []  # what was begun, in any thread
        self.passes = threading.Semaphore(0)

    def sha256(self):
        return self

    def update(self, block):
        self.calls.append(block)
        assert self.passes.acquire(timeout=10), "the test never opened the gate"

    def hexdigest(self):
        return "the hash"

    def open(self, times=10_000):
        self.passes.release(times)

    async def begun(self, calls):
        """Wait until so many calls have begun."""
        assert await until(lambda: len(self.calls) >= calls, 5)


@pytest.fixture
def gate(example):
    gate = example.hashlib = Gate()
    yield gate
    gate.open()


def is_work(task):
    return task.get_coro().__name__ == "work"


async def threads_done():
    """Wait until the threads have done all that they were called for, and start no more."""
    await asyncio.get_running_loop().shutdown_default_executor()


async def expect_progress(client):
    """The client hears of each tenth and the end, and nothing else."""
    for percent in range(10, 101, 10):
        await client.expect(f"Progress update: {percent}% complete")
    await client.expect_close(1000)


async def test_progress_comes_in_tenths_and_then_the_end(conversation):
    ana = await conversation.join("ana", PATH)

    await expect_progress(ana)


async def test_the_reason_is_the_hash_of_all_the_work(conversation):
    ana = await conversation.join("ana", PATH)

    await expect_progress(ana)

    assert ana.reason == hashlib.sha256(b"block" * 3 * 10).hexdigest()


async def test_a_tenth_is_told_after_its_work_and_before_the_next(conversation, gate):
    ana = await conversation.join("ana", PATH)

    for percent in range(10, 101, 10):
        gate.open(3)
        await ana.expect(f"Progress update: {percent}% complete")

    await ana.expect_close(1000)
    assert len(gate.calls) == 30


async def test_the_event_loop_stays_free_while_a_job_runs(conversation, gate, server):
    ana = await conversation.join("ana", PATH)
    await gate.begun(1)

    async with http_client() as http:
        page = await http.get(server.http_url)
    ben = await conversation.join("ben", PATH)
    await ben.leave(4000)

    assert page.status_code == 200
    assert ben.code == 4000
    gate.open()
    await expect_progress(ana)


async def test_fifty_jobs_take_turns_and_the_page_is_still_served(
    conversation, gate, server
):
    crowd = [await conversation.join(f"client {n}", PATH) for n in range(50)]
    # All the threads there are for jobs wait at the gate.
    await gate.begun(2)

    async with http_client() as http:
        page = await http.get(server.http_url)

    assert page.status_code == 200
    assert len(gate.calls) < 50
    gate.open()
    for client in crowd:
        await expect_progress(client)


async def test_a_client_that_leaves_cancels_its_job_whatever_it_sent(
    conversation, gate, server
):
    ana = await conversation.join("ana", PATH)
    gate.open(4)
    await ana.expect("Progress update: 10% complete")
    await ana.send("hello")
    await ana.send(b"hello")
    await gate.begun(5)

    await ana.leave(4000, "lunch")

    # The handler ends at once; the call that runs just now is the last one.
    assert (ana.code, ana.reason) == (4000, "lunch")
    assert await server.settled()
    gate.open()
    await threads_done()
    assert len(gate.calls) == 5


async def test_a_cut_line_cancels_its_job_and_no_other(conversation, gate, server):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    await gate.begun(2)

    ben.vanish()

    assert await until(lambda: server.handlers == 1, 5)
    gate.open()
    await expect_progress(ana)
    assert len(gate.calls) == 30 + 1


async def test_jobs_that_still_waited_for_a_thread_never_start(conversation, gate, server):
    crowd = [await conversation.join(f"client {n}", PATH) for n in range(50)]
    await gate.begun(2)

    for client in crowd:
        client.vanish()
    assert await server.settled()
    gate.open()

    await threads_done()
    assert len(gate.calls) < 50


async def test_messages_of_the_client_change_nothing(conversation, gate):
    ana = await conversation.join("ana", PATH)

    for message in ["hello", "", b"\x00\xff", '{"broken', "x" * MEBIBYTE]:
        await ana.send(message)
    gate.open()

    await expect_progress(ana)


async def test_two_tabs_have_a_job_each(conversation, gate):
    first = await conversation.join("ana", PATH)
    second = await conversation.join("ana", PATH)

    gate.open()

    await expect_progress(first)
    await expect_progress(second)
    assert len(gate.calls) == 60


async def test_a_message_over_16_mebibytes_cancels_the_job_with_1009(
    conversation, gate, server
):
    ana = await conversation.join("ana", PATH)

    ana.announce(16 * MEBIBYTE + 1)

    await ana.expect_close(1009)
    assert await server.settled()


async def test_a_client_that_stops_reading_delays_nobody(conversation, gate, server):
    await conversation.join("zoe", PATH, reads=False)
    ana = await conversation.join("ana", PATH)

    gate.open()

    await expect_progress(ana)


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.5)
async def test_a_silent_half_open_peer_loses_its_job_alone(conversation, gate, server):
    ana = await conversation.join("ana", PATH)
    await conversation.join("zoe", PATH, reads=False)

    assert await until(lambda: server.handlers == 1, 5)

    gate.open()
    await expect_progress(ana)


async def test_a_ping_that_fails_before_a_send_leaves_no_trace(conversation, gate, server):
    await conversation.join("ana", PATH)
    await gate.begun(1)
    [connection] = server.uvicorn.server_state.connections

    # As it is after a failed ping, while older messages still have to be written: until
    # they are, uvicorn answers a send with RuntimeError.
    connection.close_sent = True
    gate.open()
    assert await until(lambda: not any(map(is_work, asyncio.all_tasks())), 5)
    connection.transport.abort()

    assert await server.settled()


def impatient(app):
    """A middleware that lets no send take any time."""

    async def middleware(scope, receive, send):
        async def give_up(message):
            if message["type"] == "websocket.send":
                raise TimeoutError
            await send(message)

        await app(scope, receive, give_up)

    return middleware


async def test_a_send_that_a_middleware_gives_up_ends_the_job(example, gate):
    async with serve_here(impatient(example.app)) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana", PATH)
            gate.open(3)
            await ana.expect_close(1006)
        assert await server.settled()
    assert "ERROR" not in server.log
    assert len(gate.calls) == 3


async def test_a_job_that_fails_ends_the_connection_and_is_logged(
    conversation, gate, server
):
    def fail(block):
        raise RuntimeError("out of memory")

    gate.update = fail
    ana = await conversation.join("ana", PATH)

    await ana.expect_close(1006)
    assert await server.settled()
    assert "out of memory" in server.log
    server.lines.clear()


def test_a_client_of_fastapi_comes_and_leaves_quietly(example, gate):
    gate.open(4)
    with TestClient(example.app) as client:
        with client.websocket_connect(PATH) as ana:
            assert ana.receive_text() == "Progress update: 10% complete"
            ana.send_text("hello")
        gate.open()
    assert len(gate.calls) <= 5


def test_a_client_of_fastapi_hears_the_end(example):
    with TestClient(example.app) as client, client.websocket_connect(PATH) as ana:
        for percent in range(10, 101, 10):
            assert ana.receive_text() == f"Progress update: {percent}% complete"
        assert ana.receive()["code"] == 1000


async def test_fifty_clients_come_and_go(conversation, gate, server):
    ana = await conversation.join("ana", PATH)

    async def visit(n):
        # Fifty handshakes at the same time take a while on a busy machine.
        visitor = await conversation.join(f"visitor {n}", PATH, open_timeout=30)
        await visitor.send("just passing")
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    await asyncio.gather(*(visit(n) for n in range(50)))

    gate.open()
    await expect_progress(ana)
    assert await server.settled()


async def test_ctrl_c_ends_it_with_jobs_running(process):
    async with Conversation(process.url) as conversation:
        crowd = [await conversation.join(f"client {n}", PATH) for n in range(8)]
        zoe = await conversation.join("zoe", PATH, reads=False)
        zoe.push("x" * MEBIBYTE, times=1000)
        await crowd[0].expect("Progress update: 10% complete", within=60)

        process.interrupt()

        for client in crowd:
            while await client.hears():
                pass
            assert client.code == 1012
        process.wait()
    assert "Traceback" not in process.log


async def test_the_page_shows_the_progress_and_the_end(server, gate, browser):
    tab = await browser.open(server.http_url)
    other = await browser.open(server.http_url)
    bar = tab.get_by_role("progressbar", name="Progress")
    await tab.get_by_text("connected", exact=True).wait_for()
    await other.get_by_text("connected", exact=True).wait_for()

    await other.get_by_role("button", name="Disconnect").click()
    await other.get_by_text("closed with code 1000 Disconnect button").wait_for()
    assert await bar.get_attribute("value") == "0"
    gate.open()

    await tab.get_by_text("Progress update: 100% complete").wait_for()
    assert await bar.get_attribute("value") == "100"
    await tab.get_by_text("closed with code 1000").wait_for()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("Progress update: 10% complete").wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
