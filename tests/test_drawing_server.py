"""The drawing server keeps its contract, whatever its painters do."""

import asyncio
import json
import random
from contextlib import suppress

import pytest
from fastapi.testclient import TestClient

from exercises.grader.clients import Conversation
from exercises.grader.outcomes import Failure
from exercises.grader.serving import ServerProcess, until

PATH = "/ws/drawing/lobby"
EMPTY = {"type": "board", "strokes": []}
CLEAR = {"type": "clear"}
LONG = 20.0  # seconds for what is much work


def stroke(*points, color="#d03030", width=6):
    points = [list(point) for point in points or [(1, 2), (3.5, 4.25)]]
    return {"type": "stroke", "points": points, "color": color, "width": width}


def numbered(number, *points, **looks):
    return stroke(*points, **looks) | {"id": number}


def cursor(x, y):
    return {"type": "cursor", "x": x, "y": y}


def large_stroke(seed):
    """A stroke of about 40 kB."""
    numbers = random.Random(seed)
    return stroke(*((numbers.random(), numbers.random()) for _ in range(1000)))


@pytest.fixture
async def join(conversation):
    """Join a board, and see it empty."""

    async def join(name, path=PATH, board=EMPTY):
        painter = await conversation.join(name, path)
        await painter.expect(board)
        return painter

    return join


@pytest.fixture
async def painters(join):
    """Ana, Ben and Zoe, at an empty board."""
    return [await join(name) for name in ["ana", "ben", "zoe"]]


# Painting


async def test_everybody_sees_a_stroke_with_its_number(painters):
    ana, ben, _ = painters

    await ana.send(stroke((0, 0)))
    for painter in painters:
        await painter.expect(numbered(1, (0, 0)))
    await ben.send(stroke((-1.5, 1e300), (7, 8), color="#00fF00", width=0.5))
    for painter in painters:
        await painter.expect(numbered(2, (-1.5, 1e300), (7, 8), color="#00fF00", width=0.5))


async def test_all_painters_see_all_strokes_in_one_order(painters):
    for n in range(50):
        for painter in painters:
            await painter.send(stroke((n, 0), width=1 + painters.index(painter)))

    seen = [[await painter.receive() for _ in range(150)] for painter in painters]

    assert seen[0] == seen[1] == seen[2]
    assert [each["id"] for each in seen[0]] == list(range(1, 151))


async def test_who_comes_late_first_gets_the_board(painters, join):
    for n in range(3):
        await painters[n].send(stroke((n, n)))
        for painter in painters:
            await painter.expect(numbered(n + 1, (n, n)))

    strokes = [numbered(n + 1, (n, n)) for n in range(3)]
    late = await join("late", board={"type": "board", "strokes": strokes})

    await painters[0].send(stroke((9, 9)))
    await late.expect(numbered(4, (9, 9)))


async def test_no_stroke_between_the_board_and_the_live_ones_is_lost_or_doubled(
    conversation, join
):
    ana = await join("ana")
    ana.push(json.dumps(stroke((1, 1))), times=500)
    await ana.receive()

    for n in range(20):
        late = await conversation.join(f"late {n}", PATH)
        seen = [each["id"] for each in (await late.receive())["strokes"]]
        while 500 not in seen:
            seen.append((await late.receive(within=LONG))["id"])
        assert seen == list(range(1, 501))


async def test_clear_is_for_everybody_and_the_numbers_go_on(painters, join):
    ana, ben, _ = painters
    await ana.send(stroke())
    await ben.send(CLEAR)
    await ana.send(stroke((5, 5)))

    for painter in painters:
        heard = [await painter.receive() for _ in range(3)]
        numbers = [each["id"] for each in heard if each["type"] == "stroke"]
        assert numbers == [1, 2]
        assert CLEAR in heard
    await ana.send(CLEAR)
    for painter in painters:
        await painter.expect(CLEAR)
    late = await join("late")
    await ben.send(stroke())
    await late.expect(numbered(3))


async def test_the_boards_see_nothing_of_each_other(join):
    ana = await join("ana")
    ben = await join("ben", "/ws/drawing/other%0Aboard")

    await ana.send(stroke((1, 1)))
    await ben.send(cursor(1, 2))
    await ben.send(CLEAR)
    await ben.send(stroke((2, 2)))

    await ana.expect(numbered(1, (1, 1)))
    await ben.expect(CLEAR)
    await ben.expect(numbered(1, (2, 2)))
    await ana.send(CLEAR)
    await ana.expect(CLEAR)


async def test_a_board_with_a_long_name_is_refused(conversation, join):
    await conversation.expect_refusal("ana", "/ws/drawing/" + "x" * 81, 403)
    await join("ana", "/ws/drawing/" + "x" * 80)


async def test_a_picture_waits_for_its_painter(join, server):
    ana = await join("ana")
    await ana.send(stroke())
    await ana.expect(numbered(1))
    await ana.leave()
    assert await server.settled()

    await join("ana", board={"type": "board", "strokes": [numbered(1)]})


# Cursors


async def test_a_cursor_goes_to_the_others(painters):
    ana, ben, zoe = painters

    await ana.send(cursor(1, 2.5))

    await ben.expect(cursor(1, 2.5))
    await zoe.expect(cursor(1, 2.5))
    await ana.send(CLEAR)
    await ana.expect(CLEAR)


async def test_who_is_behind_gets_each_stroke_and_no_cursors(conversation, join, example):
    example.CURSORS = 5
    ana, ben = await join("ana"), await join("ben")
    zoe = await conversation.join("zoe", PATH, reads=False)
    count = await paint_until(lambda: most_that_wait(example) > 5, example, ana, ben)
    waiting = most_that_wait(example)

    for n in range(500):
        await ana.send(cursor(n, 1))
        await ben.expect(cursor(n, 1))
    assert most_that_wait(example) == waiting
    for n in range(10):
        await ana.send(stroke((n, n)))
    await hear_until_stroke(ana, count + 10)
    zoe.read_again()

    assert await zoe.receive() == EMPTY
    for n in range(1, count + 11):
        assert (await zoe.receive(within=LONG))["id"] == n
    await ana.send(cursor(7, 7))
    await zoe.expect(cursor(7, 7))


async def test_cursors_take_no_more_than_their_part_of_a_queue(conversation, join, example):
    example.CURSORS = 5
    ana, ben = await join("ana"), await join("ben")
    await conversation.join("zoe", PATH, reads=False)
    await paint_until(lambda: most_that_wait(example) > 0, example, ana, ben)

    for n in range(500):
        await ana.send(cursor(n, 1))
        await ben.expect(cursor(n, 1))

    assert most_that_wait(example) == 5
    assert len(example.boards["lobby"].members) == 3


def most_that_wait(example):
    """How many messages wait for the painter at the lobby for whom most do."""
    return max(member.queue.qsize() for member in example.boards["lobby"].members)


async def paint_until(holds, example, painter, *others):
    """Paint large strokes, which everybody named must see, and return how many."""
    example.BOARD_SIZE = 2**30
    count = 0
    while not holds():
        count += 1
        await painter.send(large_stroke(seed=count))
        for each in [painter, *others]:
            await hear_until_stroke(each, count)
    return count


async def hear_until_stroke(painter, number):
    while (await painter.receive(f"stroke {number}", LONG)).get("id") != number:
        pass


# Limits


async def test_a_full_board_refuses_strokes_until_it_is_cleared(join, example):
    example.BOARD_SIZE = 300
    ana, ben = await join("ana"), await join("ben")
    for n in [1, 2, 3]:
        await ana.send(stroke())
        await ana.expect(numbered(n))

    await ana.send(stroke())

    await ana.expect({"type": "error", "message": "the board is full: clear it"})
    strokes = [numbered(n) for n in [1, 2, 3]]
    late = await join("late", board={"type": "board", "strokes": strokes})
    await ben.send(CLEAR)
    await late.expect(CLEAR)
    await ana.expect(CLEAR)
    await ana.send(stroke())
    await ana.expect(numbered(4))
    for n in [1, 2, 3]:
        await ben.expect(numbered(n))
    await ben.expect(CLEAR)
    await ben.expect(numbered(4))


async def test_a_client_that_takes_one_mebibyte_can_join_a_full_board(conversation, join):
    ana = await join("ana")

    async def paint_until_full(each):
        while True:
            await ana.send(each)
            if (await ana.receive())["type"] == "error":
                return

    await paint_until_full(large_stroke(seed=1))
    await paint_until_full(stroke())

    ben = await conversation.join("ben", PATH, max_size=1024 * 1024)
    board = await ben.receive(within=LONG)
    assert 900_000 < len(json.dumps(board, separators=(",", ":"))) < 1024 * 1024
    assert board["type"] == "board"
    await ana.send(CLEAR)
    await ben.expect(CLEAR)


async def test_a_new_board_takes_the_place_of_one_that_nobody_is_at(join, example):
    example.BOARDS = 3
    ana = await join("ana", "/ws/drawing/1")
    picture = {"type": "board", "strokes": [numbered(1)]}
    for board in ["2", "3"]:
        painter = await join("ben", f"/ws/drawing/{board}")
        await painter.send(stroke())
        await painter.expect(numbered(1))
        await painter.leave()
    await (await join("ben", "/ws/drawing/2", picture)).leave()
    await ana.send(stroke())
    await ana.expect(numbered(1))
    free = example.boards["3"]
    assert await until(lambda: not free.members, LONG)

    await join("zoe", "/ws/drawing/4")

    assert list(example.boards) == ["1", "2", "4"]
    await join("ben", "/ws/drawing/2", picture)
    await join("ana again", "/ws/drawing/1", picture)


async def test_no_board_is_given_when_painters_are_at_all_of_them(
    conversation, join, example
):
    example.BOARDS = 2
    ana = await join("ana", "/ws/drawing/1")
    await join("ben", "/ws/drawing/2")

    zoe = await conversation.join("zoe", "/ws/drawing/3")

    await zoe.expect_close(1013, "no board is free")
    await join("eve", "/ws/drawing/2")
    await ana.leave()
    await until(lambda: not example.boards["1"].members, LONG)
    await join("zoe", "/ws/drawing/3")


# Bad input

BAD = {
    "not JSON": "hello",
    "empty": "",
    "half": '{"type": "stroke", ',
    "nested": "[" * 60_000,
    "null": "null",
    "list": "[]",
    "string": '"clear"',
    "no type": "{}",
    "unknown type": '{"type": "board", "strokes": []}',
    "type of a wrong type": '{"type": ["clear"]}',
    "lone surrogate": '{"type": "\\ud800"}',
    "lone surrogate in the colour": json.dumps(stroke(color="\ud800")),
    "no points": json.dumps(stroke() | {"points": []}),
    "points missing": '{"type": "stroke", "color": "#000000", "width": 1}',
    "points null": json.dumps(stroke() | {"points": None}),
    "one coordinate": json.dumps(stroke((1,))),
    "three coordinates": json.dumps(stroke((1, 2, 3))),
    "a coordinate that is text": json.dumps(stroke(("1", 2))),
    "a coordinate that is true": json.dumps(stroke((True, 2))),
    "an infinite coordinate": json.dumps(stroke((8888, 2))).replace("8888", "1e999"),
    "NaN": json.dumps(stroke((float("nan"), 2))),
    "a huge integer": json.dumps(stroke((8888, 2))).replace("8888", "8" * 400),
    "a larger integer": json.dumps(stroke((8888, 2))).replace("8888", "8" * 5000),
    "too many points": json.dumps(stroke(*[(1, 2)] * 1001)),
    "a name as colour": json.dumps(stroke(color="red")),
    "a short colour": json.dumps(stroke(color="#fff")),
    "a colour and more": json.dumps(stroke(color="#ffffff\n")),
    "no width": json.dumps(stroke(width=0)),
    "a negative width": json.dumps(stroke(width=-1)),
    "too wide": json.dumps(stroke(width=101)),
    "infinitely wide": json.dumps(stroke(width=8888)).replace("8888", "1e999"),
    "a cursor without y": '{"type": "cursor", "x": 1}',
    "an infinite cursor": '{"type": "cursor", "x": 1e999, "y": 0}',
    "binary": b"\x00\xff",
    "binary JSON": json.dumps(CLEAR).encode(),
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD.keys())
async def test_bad_input_is_an_error_for_its_sender_alone(painters, message):
    ana, ben, zoe = painters

    await zoe.send(message)

    answer = await zoe.receive()
    assert answer.keys() == {"type", "message"}
    assert answer["type"] == "error"
    assert 10 < len(answer["message"]) <= 200
    await zoe.send(stroke())
    for painter in painters:
        await painter.expect(numbered(1))


async def test_an_error_says_what_was_wrong(painters):
    ana, *_ = painters

    await ana.send(stroke((1, 2), (3, "four")))

    answer = (await ana.receive())["message"]
    assert answer == "stroke: points: 1: 1: Input should be a valid number"


async def test_the_largest_stroke_that_is_allowed_arrives(painters):
    points = [(-random.random() * 1e-300, random.random() * 1e300) for _ in range(1000)]

    await painters[0].send(stroke(*points))

    await painters[1].expect(numbered(1, *points))


@pytest.mark.parametrize("length", [64 * 1024 + 1, 15 * 1024 * 1024])
async def test_a_text_over_its_limit_closes_its_sender_alone(painters, length):
    ana, ben, zoe = painters

    await ana.send(json.dumps(CLEAR).ljust(64 * 1024))
    await zoe.send(json.dumps(CLEAR).ljust(length))

    await zoe.expect(CLEAR)
    await zoe.expect_close(1009, "the text is too long")
    await ana.send(stroke())
    for painter in [ana, ben]:
        await painter.expect(CLEAR)
        await painter.expect(numbered(1))


async def test_a_message_over_16_mebibytes_closes_its_sender_alone(painters):
    ana, ben, zoe = painters

    zoe.announce(16 * 1024 * 1024 + 1)

    await zoe.expect_close(1009)
    await ana.send(CLEAR)
    await ben.expect(CLEAR)


# Painters at their worst


async def test_a_painter_who_stops_reading_is_evicted_and_delays_nobody(
    conversation, join, server, example
):
    example.BACKLOG, example.CLOSE_TIMEOUT = 20, 0.1
    ana, ben = await join("ana"), await join("ben")
    zoe = await conversation.join("zoe", PATH, reads=False)
    board = example.boards["lobby"]

    await paint_until(lambda: len(board.members) == 2, example, ana, ben)

    # It is too late to reach her.
    assert await until(lambda: server.handlers == 2, LONG)
    zoe.read_again()
    heard = 0
    while await zoe.hears():
        heard += 1
    assert heard > 10
    assert zoe.code == 1006


async def test_who_was_evicted_finds_the_strokes_on_the_board(conversation, join, example):
    example.BACKLOG, example.CLOSE_TIMEOUT = 20, LONG
    ana = await join("ana")
    zoe = await conversation.join("zoe", PATH, reads=False)
    board = example.boards["lobby"]

    count = await paint_until(lambda: len(board.members) == 1, example, ana)
    zoe.read_again()

    while await zoe.hears():
        pass
    assert (zoe.code, zoe.reason) == (1013, "reads too slowly")
    again = await conversation.join("zoe again", PATH)
    numbers = [each["id"] for each in (await again.receive())["strokes"]]
    assert numbers == list(range(1, count + 1))


async def test_who_only_makes_mistakes_and_never_reads_is_read_no_further(
    conversation, join, example
):
    example.BACKLOG = 20
    example.error_message = lambda error: "x" * 65536
    ana = await join("ana")
    zoe = await conversation.join("zoe", PATH, reads=False)

    pushing = zoe.push("nonsense", times=100_000)

    # Half of her queue is full, and stays so, while the server takes nothing from her.
    assert await until(lambda: most_that_wait(example) == 11, LONG)
    for _ in range(100):
        await ana.send("nonsense")
        await ana.receive()
    assert most_that_wait(example) == 11
    zoe.vanish()
    await pushing
    assert await until(lambda: len(example.boards["lobby"].members) == 1, LONG)


async def test_a_reset_while_the_server_sends_drops_nobody_else(
    conversation, join, example
):
    ana, ben = await join("ana"), await join("ben")
    zoe = await conversation.join("zoe", PATH, reads=False)
    board = example.boards["lobby"]
    await paint_until(lambda: most_that_wait(example) > 5, example, ana, ben)

    zoe.vanish()

    assert await until(lambda: len(board.members) == 2, LONG)
    await ana.send(CLEAR)
    await ben.expect(CLEAR)


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.1)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, join, example):
    ana = await join("ana")
    await conversation.join("zoe", PATH, reads=False)
    board = example.boards["lobby"]

    assert await until(lambda: len(board.members) == 1, LONG)
    await ana.send(CLEAR)
    await ana.expect(CLEAR)


async def test_fifty_painters_come_and_go_while_others_paint(
    conversation, join, server, example
):
    ana, ben = await join("ana"), await join("ben")

    async def visit(n):
        visitor = await conversation.join(f"visitor {n}", PATH)
        await visitor.send(cursor(n, n))
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    visits = [asyncio.create_task(visit(n)) for n in range(50)]
    for n in range(100):
        await ana.send(stroke((n, n)))
    await asyncio.gather(*visits)

    seen = []
    while len(seen) < 100:
        message = await ben.receive()
        if message["type"] == "stroke":
            seen.append(message)
    assert seen == [numbered(n + 1, (n, n)) for n in range(100)]
    assert await until(lambda: server.handlers == 2, LONG)
    assert len(example.boards["lobby"].members) == 2


async def test_a_flood_in_one_breath_evicts_nobody(join, example):
    ana, ben = await join("ana"), await join("ben")
    example.BOARD_SIZE = 2**30

    ana.send_at_once(*[json.dumps(stroke((0.25, 0.25)))] * 3000)

    await hear_until_stroke(ben, 3000)
    assert len(example.boards["lobby"].members) == 2


def test_a_client_of_fastapi_comes_and_leaves_quietly(example):
    with TestClient(example.app) as client:
        for _ in range(3):
            with client.websocket_connect(PATH) as ana:
                assert ana.receive_json() == EMPTY
            assert not example.boards["lobby"].members


async def test_ctrl_c_ends_it_while_painters_paint(process: ServerProcess):
    async with Conversation(process.url) as conversation:
        crowd = [await conversation.join(f"painter {n}", PATH) for n in range(10)]
        ana, *others = crowd
        await ana.expect(EMPTY)

        async def paint():
            with suppress(Failure):  # it is closed in the midst of it
                while True:
                    await ana.send(stroke())
                    await ana.receive()

        painting = asyncio.create_task(paint())
        await hear_until_stroke(others[0], 10)
        process.interrupt()

        process.wait()
        await asyncio.wait([painting])
        for painter in crowd:
            while await painter.hears():
                pass
            assert painter.code == 1012
    assert "Traceback" not in process.log


# The page

PIXELS = "document.getElementById('board').toDataURL()"


async def drag(tab, start, end, steps):
    """Draw with the mouse; places are parts of the canvas."""
    box = await tab.locator("#sketch").bounding_box()

    def place(point):
        return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]

    await tab.mouse.move(*place(start))
    await tab.mouse.down()
    await tab.mouse.move(*place(end), steps=steps)
    await tab.mouse.up()


async def same_picture(tabs, other_than):
    """Wait until the tabs show the same, and something new."""
    for _ in range(200):
        pictures = {await tab.evaluate(PIXELS) for tab in tabs}
        if len(pictures) == 1 and not pictures & other_than:
            return pictures.pop()
        await tabs[0].evaluate("new Promise(requestAnimationFrame)")
    raise AssertionError("the tabs show different pictures")


async def test_two_tabs_of_different_size_end_with_the_same_pixels(
    server, browser, example
):
    tabs = [await browser.open(server.http_url) for _ in range(2)]
    await tabs[1].set_viewport_size({"width": 390, "height": 700})
    for tab in tabs:
        await tab.get_by_text("connected", exact=True).wait_for()
    blank = await tabs[0].evaluate(PIXELS)
    await tabs[1].get_by_label("Colour").fill("#0000ff")
    await tabs[1].get_by_label("Width").fill("30")

    await asyncio.gather(
        drag(tabs[0], (0.1, 0.1), (0.9, 0.9), steps=60),
        drag(tabs[1], (0.1, 0.9), (0.9, 0.1), steps=60),
    )

    board = example.boards["lobby"]
    assert await until(lambda: len(board.strokes) == 4, LONG)
    painted = await same_picture(tabs, {blank})
    late = await browser.open(server.http_url)
    await same_picture([*tabs, late], {blank})
    await tabs[0].get_by_role("button", name="Clear").press("Enter")
    assert await same_picture([*tabs, late], {painted}) == blank


async def test_a_finger_draws_a_dot(server, browser, example):
    tab = await browser.open(server.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()
    box = await tab.locator("#sketch").bounding_box()
    finger = await browser.context.new_cdp_session(tab)
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    blank = await tab.evaluate(PIXELS)

    for kind, points in [("touchStart", [place]), ("touchEnd", [])]:
        event = {"type": kind, "touchPoints": points}
        await finger.send("Input.dispatchTouchEvent", event)

    assert await until(lambda: len(example.boards["lobby"].strokes) == 1, LONG)
    points = json.loads(example.boards["lobby"].strokes[0])["points"]
    assert points[0] == pytest.approx([500, 300], abs=1)
    await same_picture([tab], {blank})


async def test_the_page_shows_errors_and_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()
    await tab.evaluate("send({type: '<b>x</b>'})")
    await tab.get_by_text("Input tag '<b>x</b>'").wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
