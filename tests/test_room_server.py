"""The room server keeps its contract, whatever its clients do."""

import asyncio
import contextlib
import gc
import json
import random
from urllib.parse import quote

import pytest

from exercises.grader.clients import Conversation
from exercises.grader.outcomes import Failure
from exercises.grader.serving import until

LONGEST = 64 * 1024  # characters of one text
LARGE = random.Random(5).randbytes(30 * 1024).hex()  # 60 KiB that deflate cannot shrink
ENOUGH = 400  # large messages; a stalled client's buffers hold about 60
PATIENCE = 10.0  # seconds to wait for what may take a while on a busy machine
GONE = "Nobody called zoe is in this room"


def path(user, room="kitchen"):
    return f"/ws/chat/{quote(room, safe='')}/{quote(user, safe='')}"


def join(user, *users):
    return {"type": "join", "user": user, "users": list(users)}


def leave(user):
    return {"type": "leave", "user": user}


def message(user, content):
    return {"type": "message", "user": user, "content": content}


def private(user, content):
    return {"type": "private", "from": user, "content": content}


async def expect_error(client, *words):
    """The next message is an error, which is short and holds these words."""
    error = await client.receive("an error")
    assert list(error) == ["type", "message"], error
    assert error["type"] == "error"
    assert all(word in error["message"] for word in words), error
    assert len(error["message"]) < 120
    assert "http" not in error["message"]


@pytest.fixture
async def users(conversation):
    """Ana, Ben and Zoe in the kitchen, who have heard each other join."""
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    zoe = await conversation.join("zoe", path("zoe"))
    for client in [ana, zoe]:
        await client.expect(join("zoe", "ana", "zoe"))
    ben = await conversation.join("ben", path("ben"))
    for client in [ana, zoe, ben]:
        await client.expect(join("ben", "ana", "ben", "zoe"))
    return [ana, ben, zoe]


async def sleeper(conversation, ana, user="zoe"):
    """Somebody who never reads; Ana, who is alone with them, hears them join."""
    client = await conversation.join(user, path(user), reads=False)
    await ana.expect(join(user, "ana", user))
    return client


async def evict(example, talker, *listeners):
    """Talk until a queue is full, and once more; the listeners hear all that was said."""
    room = example.rooms["kitchen"]
    before = len(room)
    for _ in range(ENOUGH):
        full = any(member.queue.full() for member in room)
        await talker.send({"content": LARGE})
        for client in [talker, *listeners]:
            await client.expect(message(talker.name, LARGE))
        if full:
            break
    assert await until(lambda: len(room) < before, PATIENCE)


async def test_a_message_reaches_everybody_its_sender_included(users):
    ana, ben, zoe = users

    await ana.send({"type": "message", "content": "hello"})
    await ana.send({"content": "and welcome"})

    for client in users:
        await client.expect(message("ana", "hello"))
        await client.expect(message("ana", "and welcome"))


async def test_the_rest_hear_who_left(users):
    ana, ben, zoe = users

    await zoe.leave()
    await ana.expect(leave("zoe"))
    await ben.expect(leave("zoe"))

    ben.vanish()
    await ana.expect(leave("ben"))


async def test_a_private_message_reaches_all_tabs_of_one_user_alone(users, conversation):
    ana, ben, zoe = users
    tab = await conversation.join("ben's other tab", path("ben"))
    await tab.expect(join("ben", "ana", "ben", "zoe"))

    await ana.send({"type": "private", "to": "ben", "content": "psst"})
    await ana.send({"content": "hello"})

    for client in [ben, tab]:
        await client.expect(private("ana", "psst"))
    for client in [ana, ben, tab, zoe]:
        await client.expect(message("ana", "hello"))


async def test_a_private_message_to_oneself_reaches_all_own_tabs(users, conversation):
    ana, ben, _ = users
    tab = await conversation.join("ana's other tab", path("ana"))
    await tab.expect(join("ana", "ana", "ben", "zoe"))

    await ana.send({"type": "private", "to": "ana", "content": "remember"})

    await ana.expect(private("ana", "remember"))
    await tab.expect(private("ana", "remember"))
    await ana.send({"content": "hello"})
    await ben.expect(message("ana", "hello"))


async def test_a_private_message_to_nobody_is_answered_with_an_error(users, conversation):
    ana, ben, _ = users
    eva = await conversation.join("eva", path("eva", room="cellar"))
    await eva.expect(join("eva", "eva"))

    await ana.send({"type": "private", "to": "eva", "content": "psst"})
    await ana.send({"type": "private", "to": "", "content": "psst"})
    await ana.send({"type": "private", "to": "x" * 60_000, "content": "psst"})

    await expect_error(ana, "eva")
    await expect_error(ana)
    await expect_error(ana, "xxx")
    await ana.send({"content": "hello"})
    await ben.expect(message("ana", "hello"))
    await eva.send({"content": "alone"})
    await eva.expect(message("eva", "alone"))


async def test_a_user_joins_with_the_first_tab_and_leaves_with_the_last(
    users, conversation
):
    ana, ben, zoe = users

    tab = await conversation.join("zoe's other tab", path("zoe"))
    await tab.expect(join("zoe", "ana", "ben", "zoe"))
    await zoe.leave()
    await ana.send({"content": "one tab is left"})
    await tab.expect(message("ana", "one tab is left"))
    tab.vanish()

    for client in [ana, ben]:
        await client.expect(message("ana", "one tab is left"))
        await client.expect(leave("zoe"))


async def test_both_tabs_of_a_user_hear_everything(users, conversation):
    ana, ben, zoe = users
    tab = await conversation.join("zoe's other tab", path("zoe"))
    await tab.expect(join("zoe", "ana", "ben", "zoe"))

    await tab.send({"content": "from one"})
    await zoe.send({"content": "from the other"})

    for client in [ana, ben, zoe, tab]:
        heard = [await client.receive(), await client.receive()]
        assert sorted(m["content"] for m in heard) == ["from one", "from the other"]


async def test_whoever_comes_back_joins_again(users, conversation):
    ana, ben, zoe = users

    await zoe.leave()
    await ana.expect(leave("zoe"))
    await conversation.join("zoe", path("zoe"))

    await ana.expect(join("zoe", "ana", "ben", "zoe"))


async def test_the_rooms_hear_nothing_of_each_other(conversation):
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    other = await conversation.join("ana below", path("ana", room="cellar"))
    await other.expect(join("ana", "ana"))

    await ana.send({"content": "one"})
    await other.send({"content": "two"})
    await ana.expect(message("ana", "one"))
    await other.expect(message("ana", "two"))

    await other.leave()
    await ana.send({"content": "three"})
    await ana.expect(message("ana", "three"))


WRONG = {
    "empty": ("", "JSON"),
    "not JSON": ("hello", "JSON"),
    "half of it": ('{"content": "a"', "JSON"),
    "two of it": ('{"content": "a"} {"content": "b"}', "JSON"),
    "number": ("1", "object"),
    "null": ("null", "object"),
    "list": ('[{"content": "a"}]', "object"),
    "unknown type": ('{"type": "wave", "content": "a"}', "type"),
    "type of the server's": ('{"type": "leave", "user": "zoe"}', "type"),
    "null for a type": ('{"type": null, "content": "a"}', "type"),
    "list for a type": ('{"type": ["message"], "content": "a"}', "type"),
    "no content": ("{}", "content"),
    "null for content": ('{"content": null}', "content"),
    "number for content": ('{"content": 1}', "content"),
    "object for content": ('{"content": {"text": "a"}}', "content"),
    "nobody to tell": ('{"type": "private", "content": "a"}', "to"),
    "number for a user": ('{"type": "private", "to": 7, "content": "a"}', "to"),
    "private without content": ('{"type": "private", "to": "ben"}', "content"),
    "not a number": ('{"content": NaN}', "content"),
    "infinite": ('{"content": 1e999}', "content"),
    "endless number": ('{"content": ' + "9" * 5000 + "}", "JSON"),
    "deep": ('{"content": ' + "[" * 60_000, "JSON"),
    "lone surrogate": (r'{"content": "\ud800"}', "JSON"),
    "lone surrogate in a name": (
        r'{"type": "private", "to": "\udfff", "content": ""}',
        "JSON",
    ),
    "huge type": (json.dumps({"type": "x" * 60_000}), "type"),
    "huge wrong content": (json.dumps({"content": ["x" * 60_000]}), "content"),
    "binary": (b'{"content": "a"}', "text"),
    "empty binary": (b"", "text"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_what_makes_no_sense_is_an_error_to_its_sender_alone(users, wrong):
    ana, ben, zoe = users
    nonsense, why = wrong

    await zoe.send(nonsense)

    await expect_error(zoe, why)
    await zoe.send({"content": "sorry"})
    for client in users:
        await client.expect(message("zoe", "sorry"))


async def test_keys_that_mean_nothing_are_ignored(users):
    ana, ben, _ = users

    await ana.send({"content": "hello", "user": "zoe", "id": 7, "to": ["ben"]})

    await ben.expect(message("ana", "hello"))


@pytest.mark.parametrize("content", ["", "\x00", "žluťoučký kůň 🐎", '"}', LARGE])
async def test_content_arrives_as_it_was_sent(users, content):
    ana, ben, _ = users

    await ana.send({"content": content})
    await ana.send({"type": "private", "to": "ben", "content": content})

    await ben.expect(message("ana", content))
    await ben.expect(private("ana", content))


@pytest.mark.parametrize("name", ["1763640000000", "žluťoučký 🐎", "a\nb", '?#%"', "<b>"])
async def test_a_room_and_a_user_may_have_any_name(conversation, example, name):
    somebody = await conversation.join("somebody", path(name, room=name))
    await somebody.expect(join(name, name))

    await somebody.send({"type": "private", "to": name, "content": "hello"})

    await somebody.expect(private(name, "hello"))
    assert list(example.rooms) == [name]


async def test_messages_of_one_sender_stay_in_order(users):
    ana, ben, _ = users

    for n in range(200):
        await ana.send({"content": str(n)})

    for n in range(200):
        await ben.expect(message("ana", str(n)))


async def test_what_piled_up_for_a_slow_client_comes_in_order(conversation, example):
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    zoe = await sleeper(conversation, ana)

    said = 0
    while not any(member.queue.qsize() > 3 for member in example.rooms["kitchen"]):
        await ana.send({"content": f"{said} {LARGE}"})
        await ana.expect(message("ana", f"{said} {LARGE}"))
        said += 1
    zoe.read_again()

    await zoe.expect(join("zoe", "ana", "zoe"))
    for n in range(said):
        await zoe.expect(message("ana", f"{n} {LARGE}"))


async def test_a_client_that_stops_reading_is_evicted_and_delays_nobody(
    conversation, example
):
    example.BACKLOG = 20
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    ben = await conversation.join("ben", path("ben"))
    zoe = await conversation.join("zoe", path("zoe"), reads=False)
    for client in [ana, ben]:
        await client.expect(join("ben", "ana", "ben"))
        await client.expect(join("zoe", "ana", "ben", "zoe"))

    await evict(example, ana, ben)

    for client in [ana, ben]:
        await client.expect(leave("zoe"))
    zoe.read_again()
    heard = 0
    while await zoe.hears():
        heard += 1
    assert heard > 10
    assert (zoe.code, zoe.reason) == (1013, "reads too slowly")


async def test_an_evicted_client_that_never_reads_again_is_given_up(
    conversation, example, server
):
    example.BACKLOG, example.CLOSE_TIMEOUT = 20, 0.01
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    zoe = await sleeper(conversation, ana)

    await evict(example, ana)

    assert await until(lambda: server.handlers == 1, PATIENCE)
    tasks = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
    assert tasks.count("Member.write") == 1  # Ana's
    assert zoe.code is None


async def test_many_are_evicted_at_once_and_each_is_told_once(conversation, example):
    example.BACKLOG = 20
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    names = [f"sleeper {n}" for n in range(8)]
    for n, name in enumerate(names):
        await conversation.join(name, path(name), reads=False)
        await ana.expect(join(name, "ana", *names[: n + 1]))

    left = []
    for _ in range(ENOUGH):
        await ana.send({"content": LARGE})
        while (heard := await ana.receive()) != message("ana", LARGE):
            left.append(heard)
        if len(left) == len(names):
            break

    assert sorted(gone["user"] for gone in left) == names


async def test_who_floods_only_itself_and_does_not_read_is_read_no_further(
    conversation, example
):
    example.BACKLOG = 20
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    zoe = await sleeper(conversation, ana)
    (zoes_queue,) = [m.queue for m in example.rooms["kitchen"] if m.user == "zoe"]

    to_herself = {"type": "private", "to": "zoe", "content": LARGE}
    zoe.push(json.dumps(to_herself), times=ENOUGH)
    assert await until(lambda: zoes_queue.qsize() > 10, PATIENCE)

    await ana.send({"content": "nobody minds"})
    await ana.expect(message("ana", "nobody minds"))
    assert zoes_queue.qsize() <= 12
    zoe.vanish()
    await ana.expect(leave("zoe"))


async def test_who_comes_back_while_an_eviction_goes_on_joins_and_leaves_once(
    conversation, example
):
    example.BACKLOG = 20
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    zoe = await sleeper(conversation, ana)

    await evict(example, ana)
    await ana.expect(leave("zoe"))
    again = await conversation.join("zoe again", path("zoe"))
    await again.expect(join("zoe", "ana", "zoe"))
    zoe.vanish()
    await again.send({"content": "back"})

    await ana.expect(join("zoe", "ana", "zoe"))
    await ana.expect(message("zoe", "back"))
    await again.leave()
    await ana.expect(leave("zoe"))


async def test_an_evicted_client_that_vanishes_leaves_no_error(conversation, example):
    example.BACKLOG = 20
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    zoe = await sleeper(conversation, ana)

    await evict(example, ana)
    await ana.expect(leave("zoe"))
    zoe.vanish()

    await ana.send({"content": "nobody minds"})
    await ana.expect(message("ana", "nobody minds"))


async def test_a_reset_while_the_server_sends_drops_nobody_else(users, example):
    ana, ben, zoe = users
    zoe.stop_reading()

    def zoes_writer_waits():
        return any(not m.queue.empty() for m in example.rooms["kitchen"] if m.user == "zoe")

    while not await until(zoes_writer_waits, 0):
        await ana.send({"content": LARGE})
        await ana.expect(message("ana", LARGE))
        await ben.expect(message("ana", LARGE))
    zoe.vanish()

    await ben.expect(leave("zoe"))
    await ana.expect(leave("zoe"))
    await ana.send({"content": "still here"})
    await ben.expect(message("ana", "still here"))


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.5)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, example):
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    await sleeper(conversation, ana)

    await ana.expect(leave("zoe"), within=PATIENCE)

    assert [member.user for member in example.rooms["kitchen"]] == ["ana"]


async def test_fifty_clients_come_and_go_during_a_broadcast(users, conversation, example):
    ana, ben, _ = users

    async def visit(n):
        visitor = await conversation.join(f"visitor {n}", path(f"visitor {n}"))
        await visitor.send({"content": "just passing"})
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    visits = [asyncio.create_task(visit(n)) for n in range(50)]
    for n in range(100):
        await ana.send({"content": str(n)})
    await asyncio.gather(*visits)

    said, here = [], {"ana", "ben", "zoe"}
    came = went = 0
    while said != [str(n) for n in range(100)] or went < 50:
        heard = await ben.receive()
        if heard["type"] == "join":
            here.add(heard["user"])
            assert heard["users"] == sorted(here)
            came += 1
        elif heard["type"] == "leave":
            here.remove(heard["user"])
            went += 1
        elif heard["user"] == "ana":
            said.append(heard["content"])
    assert (came, here) == (50, {"ana", "ben", "zoe"})
    assert len(example.rooms["kitchen"]) == 3
    gc.collect()  # An exception that nobody looked at would be logged now.


async def test_a_flood_of_large_texts_evicts_nobody(users, example):
    ana, ben, zoe = users

    zoe.push(json.dumps({"content": LARGE}), times=200)

    for _ in range(200):
        for client in users:
            await client.expect(message("zoe", LARGE), within=PATIENCE)
    assert len(example.rooms["kitchen"]) == 3


async def test_a_flood_of_short_texts_evicts_nobody(users, example):
    ana, ben, zoe = users

    ana.send_at_once(*['{"content": "hello"}'] * 5000)

    for _ in range(5000):
        for client in users:
            await client.expect(message("ana", "hello"), within=PATIENCE)
    assert len(example.rooms["kitchen"]) == 3


async def test_a_flood_of_private_texts_evicts_nobody_who_reads(users, example):
    ana, ben, zoe = users
    psst = json.dumps({"type": "private", "to": "ben", "content": "psst"})

    ana.send_at_once(*[psst] * 30_000)

    for _ in range(30_000):
        await ben.expect(private("ana", "psst"), within=PATIENCE)
    await ana.send({"content": "still here"})
    for client in users:
        await client.expect(message("ana", "still here"))


async def test_a_private_text_to_somebody_who_does_not_read_delays_its_sender_little(
    conversation, example
):
    example.BACKLOG = 20
    ana = await conversation.join("ana", path("ana"))
    await ana.expect(join("ana", "ana"))
    await sleeper(conversation, ana)

    while len(example.rooms["kitchen"]) == 2:
        await ana.send({"type": "private", "to": "zoe", "content": LARGE})
        await ana.send({"content": "and now?"})
        while (heard := await ana.receive()) != message("ana", "and now?"):
            # Zoe leaves while the last of them is on its way.
            assert heard in (leave("zoe"), example.Error(message=GONE).model_dump())


async def test_the_longest_text_is_heard_and_a_longer_one_ends_its_sender_alone(users):
    ana, ben, zoe = users
    content = "x" * (LONGEST - len('{"content":""}'))

    await zoe.send('{"content":"' + content + '"}')
    for client in users:
        await client.expect(message("zoe", content))
    await zoe.send('{"content":"' + content + 'x"}')

    await zoe.expect_close(1009, "the text is too long")
    for client in [ana, ben]:
        await client.expect(leave("zoe"))


async def test_long_names_are_refused_in_the_handshake(conversation):
    ana = await conversation.join("ana", path("a" * 64, room="r" * 80))
    await ana.expect(join("a" * 64, "a" * 64))

    await conversation.expect_refusal("ben", path("b" * 65))
    await conversation.expect_refusal("zoe", path("zoe", room="r" * 81))


async def test_a_fault_of_its_own_leaves_no_ghost(users, example, server):
    ana, ben, zoe = users

    example.receive_text = None  # Calling it raises TypeError.
    await zoe.send({"content": "hello"})

    for client in users:
        await client.expect(message("zoe", "hello"))
    await zoe.expect_close(1006)
    await ana.expect(leave("zoe"))
    await ben.expect(leave("zoe"))
    assert any("TypeError" in line for line in server.lines)
    server.lines[:] = [line for line in server.lines if "TypeError" not in line]


async def test_a_writer_that_fails_ends_the_tab_and_is_logged(users, example, server):
    example.CLOSE_TIMEOUT = 0.01
    ana, ben, zoe = users
    (member,) = [m for m in example.rooms["kitchen"] if m.user == "zoe"]

    member.queue.put_nowait("\ud800")  # Encoding it raises UnicodeEncodeError.

    await ana.expect(leave("zoe"), within=PATIENCE)
    await zoe.expect_close(1006)
    assert any("UnicodeEncodeError" in line for line in server.lines)
    server.lines[:] = [line for line in server.lines if "UnicodeEncodeError" not in line]


async def test_an_empty_room_leaves_nothing_behind(users, conversation, server, example):
    ana, ben, zoe = users
    for n in range(20):
        visitor = await conversation.join(f"visitor {n}", path("eva", room=f"room {n}"))
        await visitor.expect(join("eva", "eva"))
        assert len(example.rooms) == 2
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()
        assert await until(lambda: list(example.rooms) == ["kitchen"], PATIENCE)

    for client in users:
        await client.leave()
    assert await server.settled()
    assert example.rooms == {}


async def chatter(client):
    """Say something at once whenever something is heard, until the connection ends."""
    with contextlib.suppress(Failure):
        while True:
            await client.send({"content": "hello"})
            await client.receive(within=PATIENCE)


async def test_ctrl_c_ends_it_while_traffic_flows(process):
    async with Conversation(process.url) as conversation:
        ana, ben, zoe = [await conversation.join(n, path(n)) for n in ["ana", "ben", "zoe"]]
        talking = [asyncio.create_task(chatter(client)) for client in [ana, zoe]]
        await ben.receive(within=PATIENCE)

        process.interrupt()

        await asyncio.to_thread(process.wait)
        while await ben.hears():
            pass
        assert ben.code == 1012
        await asyncio.gather(*talking)
    assert "Traceback" not in process.log


async def connect(browser, server, name):
    tab = await browser.open(server.http_url)
    await tab.get_by_label("Your name").fill(name)
    await tab.keyboard.press("Enter")
    await tab.get_by_text("connected", exact=True).wait_for()
    return tab


async def test_the_page_speaks_to_all_and_to_one_and_shows_errors(server, browser):
    ana = await connect(browser, server, "ana")
    ben = await connect(browser, server, "ben?")
    await ana.get_by_text("ana, ben?", exact=True).wait_for()
    await ben.get_by_text("ana, ben?", exact=True).wait_for()
    said = ana.get_by_label("Message", exact=True)

    await said.fill("<b>hello</b>")
    await said.press("Enter")
    await ben.get_by_text('"user":"ana","content":"<b>hello</b>"').wait_for()

    await ana.get_by_label("To", exact=True).select_option("to ben? alone")
    await said.fill("psst")
    await said.press("Enter")
    await ben.get_by_text('"from":"ana","content":"psst"').wait_for()

    await ben.get_by_role("button", name="Disconnect").click()
    await ben.get_by_text("closed with code 1000 Disconnect button").wait_for()
    await ana.get_by_text("ana", exact=True).wait_for()
    await said.fill("too late, and for nobody else")
    await said.press("Enter")
    await ana.get_by_text("Nobody called ben? is in this room").wait_for()

    await ana.get_by_text("Send a text as it is").click()
    await ana.get_by_role("button", name="Send as it is").click()
    await ana.get_by_text("Expected an object whose type is").wait_for()


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await connect(browser, process, "ana")

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
