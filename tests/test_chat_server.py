"""The chat server keeps its contract, whatever its clients do."""

import asyncio
import contextlib
import random

import pytest

from exercises.grader.clients import Conversation
from exercises.grader.outcomes import Failure
from exercises.grader.serving import until

PATH = "/ws/chat"
LARGE = random.Random(3).randbytes(32 * 1024).hex()  # 64 KiB that deflate cannot shrink
PATIENCE = 10.0  # seconds to wait for what may take a while on a busy machine


@pytest.fixture
async def members(conversation):
    """Ana, Ben and Zoe, in the room."""
    return [await conversation.join(name, PATH) for name in ["ana", "ben", "zoe"]]


async def test_everybody_hears_a_message_its_sender_included(members):
    ana, ben, zoe = members

    await ana.send("hello")
    await ben.send("hi ana")

    for member in members:
        heard = {await member.receive(), await member.receive()}
        assert heard == {"Client says: hello", "Client says: hi ana"}


async def test_messages_of_one_sender_stay_in_order(members):
    ana, ben, _ = members

    for n in range(200):
        await ana.send(str(n))

    for n in range(200):
        await ben.expect(f"Client says: {n}")


async def test_the_rest_hear_that_a_client_left(members):
    ana, ben, zoe = members

    await zoe.leave()
    await ana.expect("A client left the chat")
    await ben.expect("A client left the chat")

    ben.vanish()
    await ana.expect("A client left the chat")


async def test_the_rooms_hear_nothing_of_each_other(conversation):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", "/ws/chat_additional")
    zoe = await conversation.join("zoe", "/ws/chat_additional")

    await ana.send("one")
    await ben.send("two")
    await ben.leave()

    await ana.expect("Client says: one")
    await zoe.expect("(Additional) Client says: two")
    await zoe.expect("(Additional) A client left the chat")
    await ana.send("three")
    await ana.expect("Client says: three")


async def test_a_binary_message_closes_its_sender_alone(members):
    ana, ben, zoe = members

    await zoe.send(b"\x00\x01")

    await zoe.expect_close(1003, "text messages only")
    await ana.expect("A client left the chat")
    await ana.send("still here")
    await ben.expect("A client left the chat")
    await ben.expect("Client says: still here")


LEFT = "A client left the chat"


async def test_a_client_that_stops_reading_is_evicted_and_delays_nobody(
    conversation, example
):
    example.BACKLOG = 20
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    while len(example.chat_room) == 3:
        await ana.send(LARGE)
        await ana.expect(f"Client says: {LARGE}", but=LEFT)
        await ben.expect(f"Client says: {LARGE}", but=LEFT)

    await ana.send("still here")
    await ben.expect("Client says: still here", but=LEFT)
    zoe.read_again()
    heard = 0
    while await zoe.hears():
        heard += 1
    assert heard > 10
    assert (zoe.code, zoe.reason) == (1013, "reads too slowly")


async def test_a_reset_while_the_server_sends_drops_nobody_else(conversation, example):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    zoe = await conversation.join("zoe", PATH, reads=False)

    def zoes_writer_waits():
        return any(not member.queue.empty() for member in example.chat_room)

    while not await until(zoes_writer_waits, 0):
        await ana.send(LARGE)
        await ana.expect(f"Client says: {LARGE}")
        await ben.expect(f"Client says: {LARGE}")
    zoe.vanish()

    await ben.expect("A client left the chat")
    await ana.expect("A client left the chat")
    await ana.send("still here")
    await ben.expect("Client says: still here")


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=0.1)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, example):
    ana = await conversation.join("ana", PATH)
    await conversation.join("zoe", PATH, reads=False)

    await ana.expect("A client left the chat")
    assert len(example.chat_room) == 1


async def test_fifty_clients_come_and_go_during_a_broadcast(conversation, example):
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

    said = [f"Client says: message {n}" for n in range(100)]
    heard = []
    while heard.count("A client left the chat") < 50 or said[-1] not in heard:
        heard.append(await ben.receive())
    assert [text for text in heard if text in said] == said
    assert len(example.chat_room) == 2


async def test_a_flood_in_one_breath_evicts_nobody(conversation, example):
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    ana.send_at_once(*["hello"] * 5000)

    for _ in range(5000):
        await ben.expect("Client says: hello")
    assert len(example.chat_room) == 2


async def test_empty_rooms_hold_nothing(members, server, example):
    for member in members:
        await member.leave()

    assert await server.settled()
    assert not example.chat_room


async def chatter(client):
    """Say something at once whenever something is heard, until the connection ends."""
    with contextlib.suppress(Failure):
        while True:
            await client.send("hello")
            await client.receive(within=PATIENCE)


async def test_ctrl_c_ends_it_while_traffic_flows(process):
    async with Conversation(process.url) as conversation:
        ana, ben, zoe = [await conversation.join(n, PATH) for n in ["ana", "ben", "zoe"]]
        talking = [asyncio.create_task(chatter(client)) for client in [ana, zoe]]
        await ben.receive(within=PATIENCE)

        process.interrupt()

        await asyncio.to_thread(process.wait)
        while await ben.hears():
            pass
        assert ben.code == 1012
        await asyncio.gather(*talking)
    assert "Traceback" not in process.log


async def test_the_page_shows_what_everybody_in_its_room_says(server, browser):
    ana, ben, zoe = [await browser.open(server.http_url) for _ in range(3)]
    for tab in [ana, ben, zoe]:
        await tab.get_by_text("connected", exact=True).wait_for()
    await zoe.get_by_role("button", name="Disconnect").click()
    await zoe.get_by_label("Room").select_option("/ws/chat_additional")
    await zoe.get_by_role("button", name="Connect", exact=True).click()
    await ben.get_by_text("A client left the chat").wait_for()

    for tab in [zoe, ana]:
        await tab.get_by_text("connected", exact=True).wait_for()
        await tab.get_by_label("Message", exact=True).fill("<b>hello</b>")
        await tab.keyboard.press("Enter")

    for tab in [ana, ben]:
        await tab.get_by_text("Client says: <b>hello</b>").wait_for()
    await zoe.get_by_text("(Additional) Client says: <b>hello</b>").wait_for()
    await ana.get_by_role("button", name="Disconnect").click()
    await ana.get_by_text("closed with code 1000 Disconnect button").wait_for()
    assert await ben.get_by_text("Client says").count() == 1


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await tab.get_by_text("connected", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
