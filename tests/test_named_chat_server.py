"""The named chat server keeps its contract, whatever its clients do."""

import asyncio
import contextlib
import gc
import random
from urllib.parse import quote

import pytest

from exercises.grader.clients import Conversation
from exercises.grader.outcomes import Failure
from exercises.grader.serving import until

LONGEST = 64 * 1024  # characters of one text
LARGE = random.Random(4).randbytes(30 * 1024).hex()  # 60 KiB that deflate cannot shrink
ENOUGH = 400  # large messages; a stalled client's buffers hold about 60
PATIENCE = 10.0  # seconds to wait for what may take a while on a busy machine


def path(name):
    return f"/ws/{quote(name, safe='')}"


async def enter(conversation, name, *present, **options):
    """Somebody joins, and everybody present hears it, the newcomer included."""
    newcomer = await conversation.join(name, path(name), **options)
    listeners = [*present, newcomer] if options.get("reads", True) else present
    for client in listeners:
        await client.expect(f"Client #{name} joined the chat")
    return newcomer


async def open_tab(conversation, example, name, **options):
    """Somebody who is here opens another tab, of which nobody hears."""
    before = len(example.members)
    tab = await conversation.join(name, path(name), **options)
    assert await until(lambda: len(example.members) == before + 1, PATIENCE)
    return tab


@pytest.fixture
async def people(conversation):
    """Ana, Ben and Zoe, who have heard each other join."""
    ana = await enter(conversation, "ana")
    ben = await enter(conversation, "ben", ana)
    return [ana, ben, await enter(conversation, "zoe", ana, ben)]


@pytest.fixture
async def tabs(conversation, example):
    """Ana's two tabs, and Ben."""
    first = await enter(conversation, "ana")
    second = await open_tab(conversation, example, "ana")
    return [first, second, await enter(conversation, "ben", first, second)]


async def test_the_others_hear_one_thing_and_the_sender_another(people):
    ana, ben, zoe = people

    await ana.send("hello")

    await ana.expect("You: hello")
    await ben.expect("Client #ana: hello")
    await zoe.expect("Client #ana: hello")


async def test_the_rest_hear_that_somebody_left(people):
    ana, ben, zoe = people

    await zoe.leave()
    await ana.expect("Client #zoe left the chat")
    await ben.expect("Client #zoe left the chat")

    ben.vanish()
    await ana.expect("Client #ben left the chat")


async def test_messages_of_one_sender_stay_in_order(people):
    ana, ben, _ = people

    for n in range(200):
        await ana.send(str(n))

    for n in range(200):
        await ben.expect(f"Client #ana: {n}")
        await ana.expect(f"You: {n}")


async def test_what_piled_up_for_a_slow_client_comes_in_order(conversation, example):
    ana = await enter(conversation, "ana")
    zoe = await enter(conversation, "zoe", ana, reads=False)

    said = 0
    while not any(member.queue.qsize() > 3 for member in example.members):
        await ana.send(f"{said} {LARGE}")
        await ana.expect(f"You: {said} {LARGE}")
        said += 1
    zoe.read_again()

    await zoe.expect("Client #zoe joined the chat")
    for n in range(said):
        await zoe.expect(f"Client #ana: {n} {LARGE}")


async def test_both_tabs_of_a_person_hear_everything(tabs):
    first, second, ben = tabs

    await ben.send("hi")
    for tab in [first, second]:
        await tab.expect("Client #ben: hi")

    await second.send("hello")
    for tab in [first, second]:
        await tab.expect("You: hello")
    await ben.expect("You: hi")
    await ben.expect("Client #ana: hello")


async def test_a_person_joins_with_the_first_tab_and_leaves_with_the_last(tabs, example):
    first, second, ben = tabs

    await first.leave()
    assert await until(lambda: len(example.members) == 2, PATIENCE)
    await ben.send("one tab is left")
    await second.expect("Client #ben: one tab is left")
    second.vanish()

    await ben.expect("You: one tab is left")
    await ben.expect("Client #ana left the chat")


async def test_whoever_comes_back_joins_again(people, conversation):
    ana, ben, zoe = people

    await zoe.leave()
    await ana.expect("Client #zoe left the chat")
    await ben.expect("Client #zoe left the chat")

    await enter(conversation, "zoe", ana, ben)


@pytest.mark.parametrize("name", ["1763640000000", "žluťoučký 🐎", "a\nb", "?#%", "<b>"])
async def test_a_name_may_hold_anything(conversation, name):
    ana = await enter(conversation, "ana")
    somebody = await enter(conversation, name, ana)

    await somebody.send("hello")

    await ana.expect(f"Client #{name}: hello")
    await somebody.leave()
    await ana.expect(f"Client #{name} left the chat")


@pytest.mark.parametrize("text", ["", "\x00", "žluťoučký kůň 🐎", '{"a": 1}', LARGE])
async def test_a_text_arrives_as_it_was_sent(people, text):
    ana, ben, _ = people

    await ana.send(text)

    await ben.expect(f"Client #ana: {text}")
    await ana.expect(f"You: {text}")


async def test_a_binary_message_closes_its_tab_alone(tabs):
    first, second, ben = tabs

    await second.send(b"\x00\x01")

    await second.expect_close(1003, "text messages only")
    await first.send("still here")
    await first.expect("You: still here")
    await ben.expect("Client #ana: still here")


async def test_a_binary_message_is_a_leaving_for_the_others(people, example):
    ana, ben, zoe = people

    await zoe.send(b"")

    await ana.expect("Client #zoe left the chat")
    await ben.expect("Client #zoe left the chat")
    assert len(example.members) == 2


async def evict(example, talker, *listeners):
    """Talk until a queue is full, and once more; the listeners hear all that was said."""
    before = len(example.members)
    for _ in range(ENOUGH):
        full = any(member.queue.full() for member in example.members)
        await talker.send(LARGE)
        await talker.expect(f"You: {LARGE}")
        for listener in listeners:
            await listener.expect(f"Client #{talker.name}: {LARGE}")
        if full:
            break
    assert await until(lambda: len(example.members) < before, PATIENCE)


async def test_a_client_that_stops_reading_is_evicted_and_delays_nobody(
    conversation, example
):
    example.BACKLOG = 20
    ana = await enter(conversation, "ana")
    ben = await enter(conversation, "ben", ana)
    zoe = await enter(conversation, "zoe", ana, ben, reads=False)

    await evict(example, ana, ben)

    await ana.expect("Client #zoe left the chat")
    await ben.expect("Client #zoe left the chat")
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
    ana = await enter(conversation, "ana")
    zoe = await enter(conversation, "zoe", ana, reads=False)

    await evict(example, ana)

    assert await until(lambda: server.handlers == 1, PATIENCE)
    tasks = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
    assert tasks.count("Member.write") == 1  # Ana's
    assert zoe.code is None


async def test_the_eviction_of_a_tab_is_not_told_while_another_is_open(
    conversation, example
):
    example.BACKLOG = 20
    ben = await enter(conversation, "ben")
    ana = await enter(conversation, "ana", ben)
    await open_tab(conversation, example, "ana", reads=False)

    await evict(example, ben, ana)
    await ana.send("still here")
    await ben.expect("Client #ana: still here")
    await ana.leave()

    await ben.expect("Client #ana left the chat")


async def test_who_comes_back_while_an_eviction_goes_on_joins_and_leaves_once(
    conversation, example
):
    example.BACKLOG = 20
    ana = await enter(conversation, "ana")
    zoe = await enter(conversation, "zoe", ana, reads=False)

    await evict(example, ana)
    await ana.expect("Client #zoe left the chat")
    again = await enter(conversation, "zoe", ana)
    zoe.vanish()
    await again.send("back")

    await ana.expect("Client #zoe: back")
    await again.leave()
    await ana.expect("Client #zoe left the chat")


async def test_many_are_evicted_at_once_and_each_is_told_once(conversation, example):
    example.BACKLOG = 20
    ana = await enter(conversation, "ana")
    names = {f"sleeper {n}" for n in range(8)}
    for name in names:
        await enter(conversation, name, ana, reads=False)

    left = []
    for _ in range(ENOUGH):
        await ana.send(LARGE)
        while (heard := await ana.receive()) != f"You: {LARGE}":
            left.append(heard)
        if len(left) == len(names):
            break

    assert sorted(left) == sorted(f"Client #{name} left the chat" for name in names)


async def test_an_evicted_client_that_vanishes_leaves_no_error(conversation, example):
    example.BACKLOG = 20
    ana = await enter(conversation, "ana")
    zoe = await enter(conversation, "zoe", ana, reads=False)

    await evict(example, ana)
    await ana.expect("Client #zoe left the chat")
    zoe.vanish()

    await ana.send("nobody minds")
    await ana.expect("You: nobody minds")


async def test_a_reset_while_the_server_sends_drops_nobody_else(conversation, example):
    ana = await enter(conversation, "ana")
    ben = await enter(conversation, "ben", ana)
    zoe = await enter(conversation, "zoe", ana, ben, reads=False)

    def zoes_writer_waits():
        return any(not member.queue.empty() for member in example.members)

    while not await until(zoes_writer_waits, 0):
        await ana.send(LARGE)
        await ana.expect(f"You: {LARGE}")
        await ben.expect(f"Client #ana: {LARGE}")
    zoe.vanish()

    await ben.expect("Client #zoe left the chat")
    await ana.expect("Client #zoe left the chat")
    await ana.send("still here")
    await ben.expect("Client #ana: still here")


async def test_a_binary_message_of_a_stalled_client_ends_its_handler_too(
    conversation, example, server
):
    example.CLOSE_TIMEOUT = 0.01
    ana = await enter(conversation, "ana")
    zoe = await enter(conversation, "zoe", ana, reads=False)

    while not any(member.queue.qsize() > 3 for member in example.members):
        await ana.send(LARGE)
        await ana.expect(f"You: {LARGE}")
    await zoe.send(b"\x00")

    await ana.expect("Client #zoe left the chat")
    assert await until(lambda: server.handlers == 1, PATIENCE)


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.5)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, example):
    ana = await enter(conversation, "ana")
    await enter(conversation, "zoe", ana, reads=False)

    await ana.expect("Client #zoe left the chat", within=PATIENCE)

    assert [member.name for member in example.members] == ["ana"]


async def test_fifty_clients_come_and_go_during_a_broadcast(conversation, example):
    ana = await enter(conversation, "ana")
    ben = await enter(conversation, "ben", ana)

    async def visit(n):
        visitor = await conversation.join(f"visitor {n}", path(f"visitor {n}"))
        await visitor.send("just passing")
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    visits = [asyncio.create_task(visit(n)) for n in range(50)]
    for n in range(100):
        await ana.send(f"message {n}")
    await asyncio.gather(*visits)

    said = [f"Client #ana: message {n}" for n in range(100)]
    came = [f"Client #visitor {n} joined the chat" for n in range(50)]
    went = [f"Client #visitor {n} left the chat" for n in range(50)]
    heard = []
    while not set(said + came + went) <= set(heard):
        heard.append(await ben.receive())
    assert [text for text in heard if text in said] == said
    assert sorted(text for text in heard if "just" not in text) == sorted(
        said + came + went
    )
    assert len(example.members) == 2
    gc.collect()  # An exception that nobody looked at would be logged now.


async def test_a_flood_of_short_texts_evicts_nobody(people, example):
    ana, ben, zoe = people

    ana.send_at_once(*["hello"] * 30_000)

    for _ in range(30_000):
        await ana.expect("You: hello", within=PATIENCE)
        await ben.expect("Client #ana: hello", within=PATIENCE)
    assert len(example.members) == 3


async def test_a_flood_of_large_texts_evicts_nobody(people, example):
    ana, ben, zoe = people

    zoe.push(LARGE, times=200)

    for _ in range(200):
        await ana.expect(f"Client #zoe: {LARGE}", within=PATIENCE)
        await ben.expect(f"Client #zoe: {LARGE}", within=PATIENCE)
    assert len(example.members) == 3


async def test_the_longest_text_is_heard_and_a_longer_one_ends_its_sender_alone(people):
    ana, ben, zoe = people

    await zoe.send("x" * LONGEST)
    await ana.expect("Client #zoe: " + "x" * LONGEST)
    await zoe.expect("You: " + "x" * LONGEST)
    await zoe.send("x" * (LONGEST + 1))

    await zoe.expect_close(1009, "the text is too long")
    await ana.expect("Client #zoe left the chat")
    await ben.expect("Client #zoe: " + "x" * LONGEST)
    await ben.expect("Client #zoe left the chat")


async def test_a_name_of_64_characters_is_let_in_and_a_longer_one_refused(conversation):
    await enter(conversation, "x" * 64)

    await conversation.expect_refusal("zoe", path("x" * 65))


async def test_an_unexpected_error_ends_the_tab_and_is_logged(people, example, server):
    ana, ben, zoe = people

    example.receive_text = None  # Calling it raises TypeError.
    await zoe.send("hello")

    await zoe.expect("You: hello")
    await zoe.expect_close(1006)
    await ana.expect("Client #zoe: hello")
    await ana.expect("Client #zoe left the chat")
    assert any("TypeError" in line for line in server.lines)
    server.lines[:] = [line for line in server.lines if "TypeError" not in line]


async def test_a_writer_that_fails_ends_the_tab_and_is_logged(people, example, server):
    example.CLOSE_TIMEOUT = 0.01
    ana, ben, zoe = people
    (member,) = [member for member in example.members if member.name == "zoe"]

    member.queue.put_nowait("\ud800")  # Encoding it raises UnicodeEncodeError.

    await ana.expect("Client #zoe left the chat", within=PATIENCE)
    await zoe.expect_close(1006)
    assert any("UnicodeEncodeError" in line for line in server.lines)
    server.lines[:] = [line for line in server.lines if "UnicodeEncodeError" not in line]


async def test_an_empty_chat_holds_nothing(people, server, example):
    for client in people:
        await client.leave()

    assert await server.settled()
    assert not example.members


async def chatter(client):
    """Say something at once whenever something is heard, until the connection ends."""
    with contextlib.suppress(Failure):
        while True:
            await client.send("hello")
            await client.receive(within=PATIENCE)


async def test_ctrl_c_ends_it_while_traffic_flows(process):
    async with Conversation(process.url) as conversation:
        ana = await enter(conversation, "ana")
        zoe = await enter(conversation, "zoe", ana)
        ben = await enter(conversation, "ben", ana, zoe)
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


async def test_the_page_is_one_person_in_two_tabs(server, browser):
    ana = await connect(browser, server, "ana?")
    again = await connect(browser, server, "ana?")
    ben = await connect(browser, server, "ben")
    await again.get_by_text("Client #ben joined the chat").wait_for()

    await ana.get_by_label("Message", exact=True).fill("<b>hello</b>")
    await ana.keyboard.press("Enter")

    await again.get_by_text("You: <b>hello</b>").wait_for()
    await ben.get_by_text("Client #ana?: <b>hello</b>").wait_for()
    for tab in [ana, again]:
        await tab.get_by_role("button", name="Disconnect").click()
        await tab.get_by_text("closed with code 1000 Disconnect button").wait_for()
    await ben.get_by_text("Client #ana? left the chat").wait_for()
    assert await ben.get_by_role("listitem").count() == 4


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await connect(browser, process, "ana")

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
    await tab.get_by_role("button", name="Connect", exact=True).is_enabled()
