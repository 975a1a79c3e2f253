"""The verbs of the notebooks do what their names say, on real servers."""

import asyncio
import re
import shutil
from contextlib import aclosing
from pathlib import Path

import pytest

from exercises.grader.serving import load, until
from exercises.grader.timeline import Kind

ROOT = Path(__file__).parent.parent
LEFT = "A client left the chat"


@pytest.fixture(scope="module")
def lab():
    lab = load(ROOT / "notebooks" / "lab.py")
    yield lab
    lab._end_all()


@pytest.fixture(scope="module")
def server(lab):
    return lab.serve("chat_server")


@pytest.fixture(scope="module")
def small(lab):
    return lab.serve("chat_server", name="small", BACKLOG=20, CLOSE_TIMEOUT=30.0)


async def test_heard_has_all_that_was_said_before_it_was_asked(lab, server):
    async with lab.room(server, "ana", "ben", "zoe") as (ana, ben, zoe):
        for number in range(50):
            await ana.send(str(number))
        await zoe.leave()

        said = [f"Client says: {number}" for number in range(50)]
        assert await ben.heard() == [*said, LEFT]
        assert await ben.heard() == []


async def test_wait_for_returns_what_came_before(lab, server):
    async with lab.room(server, "ana", "ben") as (ana, ben):
        await ana.send_at_once("one", "two", "three")

        assert await ana.hear(2) == ["Client says: one", "Client says: two"]
        assert len(await ben.wait_for("two")) == 2
        assert await ben.heard() == ["Client says: three"]


async def test_a_refused_message_ends_its_sender(lab, server):
    async with lab.room(server, "ana", "ben") as (ana, ben):
        await ana.send(b"hello")

        assert await ana.ended() == "closed 1003 'text messages only'"
        assert await ben.heard() == [LEFT]


async def test_a_picture_marks_an_event_and_shows_who_is_asked_for(lab, server):
    async with lab.room(server, "ana", "ben") as (ana, ben):
        await ana.send("hello")
        await ben.heard()
        ben.remark("that was all")

    assert 'class="bad"' in server.picture("ben ← ")
    assert server.story(people=["ben"]).splitlines() == [
        "ben · joined /ws/chat",
        'ben ← "Client says: hello"',
        "ben · that was all",
        "ben · … open to the end",
    ]
    assert '"Client says: hi"' in server.story(replace={"hello": "hi"})
    assert server.story(since="ana →").startswith('ana → "hello"\n')


def test_a_canvas_shows_the_later_strokes_on_top(lab, monkeypatch):
    monkeypatch.setattr(lab.plt, "show", lambda: None)
    red, blue = ({"points": [(1, 2), (3, 4)], "color": c, "width": 8} for c in "rb")

    lab.canvases({"Ana": [red, blue], "Ben": [blue]})

    ana, ben = (canvas.lines for canvas in lab.plt.gcf().axes)
    lab.plt.close()
    top = max(ana, key=lambda line: line.get_zorder())
    assert (top.get_color(), len(ana), len(ben)) == ("b", 2, 1)


async def test_throw_says_what_becomes_of_a_message(lab):
    path = "/ws/chat/kitchen/{name}"
    server, silent = lab.serve("room_server"), lab.serve("order_server")
    async with lab.room(server, "ana", "zoe", path=path) as (ana, zoe):
        assert await lab.throw(zoe, '{"content": "hello"}') == "passed on"
        answer = '{"type":"private","from":"zoe","content":"psst"}'
        psst = '{"type": "private", "to": "zoe", "content": "psst"}'
        assert await lab.throw(zoe, psst) == answer
        assert await lab.throw(zoe, "x" * 70_000) == "lost"

    async with lab.room(silent, "ana", path="/ws/kitchen") as (ana,):
        assert await lab.throw(ana, "hello") == "silence"


async def test_a_flood_goes_on_beside_a_client_that_does_not_read(lab, small):
    async with lab.room(small, "zoe", "ana", "ben") as (zoe, ana, ben):
        await zoe.stop_reading()

        assert await lab.flood(ana, ben, texts=200) == 200

        assert await zoe.read_to_the_end() == "closed 1013 'reads too slowly'"
        assert await ben.heard() == [LEFT]


async def test_a_flood_that_is_not_heard_ends(lab, server):
    other = lab.room(server, "ben", path="/ws/chat_additional")
    async with lab.room(server, "ana") as (ana,), other as (ben,):
        assert await lab.flood(ana, ben, texts=100) == 0


async def test_a_slow_reader_is_evicted_in_a_flood_that_lasts(lab, small):
    async with lab.room(small, "zoe", "ana", "ben") as (zoe, ana, ben):
        await zoe.read_slowly(one_in=4)

        assert await lab.flood(ana, ben, texts=400) == 400

        assert await zoe.read_to_the_end() == "closed 1013 'reads too slowly'"
        assert len(zoe.times(Kind.RECEIVED)) < 400


async def test_a_copy_can_lack_a_line(lab):
    line = "await self.catch_up()"
    hasty = lab.serve("chat_server", name="hasty", without=line, BACKLOG=20)
    async with lab.room(hasty, "ana", "ben") as (ana, ben):
        await ana.send_at_once(*map(str, range(100)))

        assert await ben.ended() == "closed 1013 'reads too slowly'"
        assert await ana.ended() == "closed 1013 'reads too slowly'"


def test_a_copy_needs_constants_that_are_there(lab):
    with pytest.raises(AssertionError, match="has no MISSING"):
        lab.serve("chat_server", name="wrong", MISSING=1)


async def test_ask_says_what_came_or_how_it_ended(lab):
    # In a chat, one who asks next may hear first that the one before has left.
    echo = lab.serve("echo_server")
    assert await lab.ask(echo, "/ws/echo", "hello") == "Echo: hello"
    assert await lab.ask(echo, "/ws/echo", b"hello") == "closed 1003 'text messages only'"
    assert await lab.ask(echo, "/nowhere") == "refused with HTTP 403"


async def test_a_picture_shows_who_was_refused(lab, server):
    async with lab.room(server) as room:
        assert await room.refused("eve", "/nowhere") == "refused with HTTP 403"
        with pytest.raises(AssertionError, match="ana was not refused"):
            await room.refused("ana", "/ws/chat")

    assert "eve · refused with HTTP 403" in server.story()


async def test_round_trips_go_on_until_something_is_over(lab):
    echo = lab.serve("echo_server")
    async with lab.room(echo, "ana", "ben", path="/ws/echo") as (ana, ben):
        measuring = asyncio.create_task(lab.round_trips(ana, until=ben.ended()))
        assert await until(lambda: len(ana.times(Kind.RECEIVED)) > 3, 10)
        await ben.leave()
        at, took = await measuring

    assert at == sorted(at)
    assert at[0] == 0
    assert len(at) == len(took) > 3
    assert min(took) > 0


async def test_only_answers_that_come_in_time_count(lab):
    path = "/ws/stream_progress"
    async with lab.room(lab.serve("progress_server"), "ana", path=path) as (ana,):
        assert await lab.answered(ana, ana.ended()) == {"pages": True, "pings": True}

    over = asyncio.get_running_loop().create_future()
    over.set_result("over")
    async with lab.room(lab.serve("echo_server"), "ana", path="/ws/echo") as (ana,):
        assert await lab.answered(ana, over) == {"pages": False, "pings": False}


async def test_a_browser_opens_a_page(lab):
    if not any(map(shutil.which, lab.BROWSERS)):
        pytest.skip("no browser on the PATH")
    server = lab.serve("progress_server")

    # Its page connects at once.
    assert await lab.browse(server, '/ws/stream_progress" [accepted]')


async def test_without_a_browser_nothing_is_measured(lab, server, monkeypatch):
    monkeypatch.setenv("PATH", "")

    assert not await lab.browse(server, "[accepted]")


async def test_a_line_speaks_frames(lab, server):
    with lab.dial(server, "/ws/chat") as line:
        await server.runs(1)
        line.write_frame(1, b"hello")
        assert line.read_frame() == (1, b"Client says: hello")
        line.write_frame(8, (1000).to_bytes(2))
        assert line.read_frame() == (8, (1000).to_bytes(2))


async def test_a_server_says_where_it_waits(lab, server):
    async with lab.room(server, "ana"):
        await server.waits_at("await self.queue.get()")
        await server.logs("connection open")
        assert server.memory() > 10


async def test_a_flood_goes_on_when_a_slow_reader_has_gone(lab, server):
    async with lab.room(server, "zoe", "ana", "ben") as (zoe, ana, ben):
        await zoe.read_slowly(one_in=1)
        await zoe.cut()
        await ben.wait_for(LEFT)

        assert await lab.flood(ana, ben, texts=3) == 3


async def test_while_a_program_reads_a_database_nobody_can_commit(lab):
    server = lab.serve("order_server")
    find = "SELECT status FROM orders WHERE id = 1"
    async with lab.room(server) as shop:
        with lab.reading(server, "orders.db") as report:
            answer = asyncio.create_task(
                shop.post("shop", "/orders/1/status", {"status": "paid"})
            )
            await server.waits_at("transaction(database)")
            assert report.find(find) == "pending"
        assert lab.stored(server, "orders.db", find) == "paid"
        assert (await answer).status == 200
    assert server.story(people=["report"]).startswith("report · finds: pending")


async def test_a_cutter_cuts_the_newest_line_of_a_module(lab):
    client, server = lab.load("reconnecting_client"), lab.serve("resume_server")
    cut = lab.cutter(client)

    async def soon(seconds):
        pass

    url = server.url + "/ws/events"
    async with aclosing(client.follow(url, sleep=soon)) as messages:
        for _ in range(3):
            assert (await anext(messages))["type"] == "hello"
            cut()


def test_a_table_shows_the_rows_that_are_asked_for(lab, capsys):
    found = lab.rows("steps", receivers=100)
    lab.table(found, "cpu_us", "no such measure")

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found) == len(lab.medians(found, "ratio"))
    assert lab.medians(found, "ratio")["public loop"] == 1
    assert lab.medians(found, "no such measure") == {}
    assert all(re.fullmatch(r"\S.* [\d.]+ \([\d.]+ to [\d.]+\) +-", line) for line in lines)


async def test_a_redis_of_a_notebook_goes_away_and_comes_back_at_the_same_address(lab):
    redis = lab.start_redis()
    server = lab.serve("redis_chat_server", environment=redis.environment)
    async with lab.room(server, "ana", path="/ws/lobby") as (ana,):
        redis.kill()
        await ana.wait_for("is away")
        redis.start()
        await ana.wait_for("is back")
    redis.end()
