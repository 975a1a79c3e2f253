"""The checks of the library: tabs that come and go, stop reading, and are cut off."""

import asyncio
import json
import random

import pytest

from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.serving import SETTLE_DEADLINE, until
from exercises.grader.timeline import shown

KEPT = 20  # notes
LONG = 800_000  # characters; ten notes are more than the buffers of a tab hold
FULL = 18  # long notes that wait for a tab; two more can be kept
PAUSE = 0.2  # seconds for the server to run into a tab that does not read
ANSWER = 5.0  # seconds to wait for an answer that should come at once


class Desk:
    """Whoever posts notes."""

    def __init__(self, conversation):
        self.conversation = conversation

    async def post(self, reader, note, status):
        """Post something, and expect this status; return what came back."""
        asked = "desk", f"/readers/{reader}/notes", note, status
        return await self.conversation.post(*asked, within=ANSWER)

    async def tell(self, reader, *notes):
        """Post good notes, one after the other."""
        for note in notes:
            answer = await self.post(reader, {"text": note["text"]}, 201)
            answer.expect(note)


@pytest.fixture
def desk(conversation):
    """Whoever posts notes, over HTTP."""
    return Desk(conversation)


def notes(word, first, last, size=0):
    """Notes of these numbers, of this many characters if a size is given."""
    texts = [word() for _ in range(first, last + 1)]
    if size:
        texts = [
            text + random.Random(text).randbytes((size - len(text)) // 2).hex()
            for text in texts
        ]
    return [
        {"number": number, "text": text} for number, text in enumerate(texts, start=first)
    ]


async def open_tab(conversation, name, reader, *, reads=True):
    return await conversation.join(name, f"/readers/{reader}", reads=reads)


async def expect_notes(notes, *tabs):
    """These are the next things that each tab hears, in this order."""
    for tab in tabs:
        for note in notes:
            try:
                await tab.expect(note)
            except Failure as failure:
                # The note itself may be too long to be shown.
                failure.expected = f"{tab.name} ← {shown(json.dumps(note))}"
                raise


async def noticed(server, *, left):
    """Wait until the server has seen which tabs closed, and so many are still open."""
    await until(lambda: server.report().handlers <= left, SETTLE_DEADLINE)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="the answer is 201 and the note with its number, and the tabs of this "
    "reader hear the same; each reader's notes are counted from 1",
    silence="keep all tabs of a reader, not one connection a reader: the second one must "
    "not take the place of the first",
    closed_early="the route is `/readers/{reader}`; its handler ends when the tab closes, "
    "and a second tab closes no other",
    server_crashed="the exception is in your code; its last line stands above",
)
async def test_every_tab_of_the_reader_hears(conversation, desk, word):
    """a note reaches every tab of its reader, and no other"""
    ana, ben = word(), word()
    first = await open_tab(conversation, "ana", ana)
    other = await open_tab(conversation, "ben", ben)
    second = await open_tab(conversation, "ana 2", ana)
    for_ana, for_ben = notes(word, 1, 4), notes(word, 1, 2)

    await desk.tell(ana, *for_ana[:3])
    await expect_notes(for_ana[:3], first, second)
    await desk.tell(ben, for_ben[0])
    await desk.tell(ana, for_ana[3])
    await desk.tell(ben, for_ben[1])

    await expect_notes(for_ana[3:], second, first)
    await expect_notes(for_ben, other)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    silence="a tab is read and written at the same time: two jobs, or reading in the "
    "handler while notes are sent from elsewhere; and who closes is taken out alone",
    wrong_message="`ping` is answered with `pong`, in the tab that said it; anything else "
    "is ignored",
    closed_early="whatever a tab says, text or binary, is no reason to close it",
    server_crashed="receive_text() fails on a binary message; and when a tab has closed "
    "there is nobody to send to, and nothing to close: catch WebSocketDisconnect",
)
async def test_a_tab_may_talk_and_close(conversation, server, desk, word):
    """`ping` is answered, all else ignored, and a tab may close"""
    reader, told = word(), notes(word, 1, 2)
    ana, ben, eva = [
        await open_tab(conversation, name, reader) for name in ["ana", "ana 2", "ana 3"]
    ]

    for message in [word(), word().encode(), "", "{", b""]:
        await ana.send(message)
    await ana.send("ping")
    await ana.expect("pong")
    await desk.tell(reader, told[0])
    await expect_notes(told[:1], ana, ben, eva)

    await eva.leave()
    ben.vanish()
    await noticed(server, left=1)
    await desk.tell(reader, told[1])
    await expect_notes(told[1:], ana)
    await ana.leave(1001)
    await server.expect_quiet()


BAD = ["", "Momo", "[]", "null", "{}", '{"text": "a"']
BAD_TEXTS = ["", None, 7, True, ["a"], {"a": "b"}]


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="what is not JSON, or has no `text`, or one that is no string or empty, "
    "is answered with 422, reaches nobody, and takes no number",
    server_crashed="look at what was posted before you use it: a Pydantic model as "
    "parameter does that, and answers with 422",
    silence="each POST is answered, also a bad one",
)
async def test_bad_posts_are_answered_with_422(conversation, desk, word):
    """what is no note is answered with 422, and that is all"""
    reader, told = word(), notes(word, 1, 2)
    ana = await open_tab(conversation, "ana", reader)

    await desk.tell(reader, told[0])
    for bad in [*BAD, *({"text": text} for text in BAD_TEXTS)]:
        await desk.post(reader, bad, 422)
    await desk.tell(reader, told[1])

    await expect_notes(told, ana)


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    silence="what is posted while no tab is open waits for the next tab that opens; a tab "
    "that closes takes nobody out but itself",
    wrong_message="what one tab has heard is not kept: each note is delivered once, unless "
    "two tabs are open at that moment",
    server_crashed="no tab is no error: keep the note",
)
async def test_kept_notes_come_once_and_in_order(conversation, server, desk, word):
    """what nobody heard comes with the next tab, once, in order"""
    reader, told = word(), notes(word, 1, 6)

    await desk.tell(reader, *told[:3])
    first = await open_tab(conversation, "ana", reader)
    await expect_notes(told[:3], first)
    second = await open_tab(conversation, "ana 2", reader)
    await desk.tell(reader, told[3])
    await expect_notes(told[3:4], first, second)

    await first.leave()
    await noticed(server, left=1)
    await desk.tell(reader, told[4])
    await expect_notes(told[4:5], second)
    third = await open_tab(conversation, "ana 3", reader)
    await desk.tell(reader, told[5])
    await expect_notes(told[5:], second, third)


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    wrong_message="of the notes that nobody heard the newest 20 are kept, for each reader; "
    "their numbers count on",
    silence="each reader has notes of its own: the newest 20 of every one are kept",
    server_crashed="what is full loses its oldest note, and the POST is answered with 201",
)
async def test_the_newest_twenty_are_kept(conversation, desk, word):
    """the newest 20 notes of each reader are kept"""
    ana, ben = word(), word()
    for_ana, for_ben = notes(word, 1, KEPT + 6), notes(word, 1, 3)

    await desk.tell(ben, *for_ben)
    await desk.tell(ana, *for_ana[:-1])
    first = await open_tab(conversation, "ana", ana)
    other = await open_tab(conversation, "ben", ben)

    await expect_notes(for_ana[5:-1], first)
    await expect_notes(for_ben, other)
    await desk.tell(ana, for_ana[-1])
    await expect_notes(for_ana[-1:], first)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="something still listens for a tab that has closed, and took this note, or "
    "keeps the handler from ending: end in `finally` whatever you started for the tab",
    server_crashed="something went on sending to a tab that has closed: end it with its "
    "handler, and catch WebSocketDisconnect around the whole conversation",
    wrong_message="something still listens for a tab that has closed, and took a note: end "
    "in `finally` whatever you started for the tab",
)
async def test_nothing_takes_notes_for_a_closed_tab(conversation, server, desk, word):
    """nothing takes a note for a tab that has closed"""
    before = server.report()
    reader, told = word(), notes(word, 1, 9)
    heard = iter(told)

    for number in range(3):
        tab = await open_tab(conversation, f"ana {number}", reader)
        live = next(heard)
        await desk.tell(reader, live)
        await tab.expect(live)
        await tab.send(word())
        if number == 1:
            tab.vanish()
        else:
            await tab.leave()
        await server.expect_quiet()

        kept = [next(heard), next(heard)]
        await desk.tell(reader, *kept)
        again = await open_tab(conversation, f"ana {number} again", reader)
        await expect_notes(kept, again)
        await again.leave()
        await server.expect_quiet(since=before)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="the line was cut while the kept notes were sent, and the rest is gone: a note "
    "is delivered when it was sent, not when you take it out to send it",
    wrong_message="the line was cut while the kept notes were sent: the next tab hears "
    "those that were not sent yet, in order and without a gap",
    server_crashed="a line that is cut makes a send fail: that is the end of this tab, and "
    "no error",
    closed_early="the end of one tab is not the end of the next",
)
async def test_a_cut_line_loses_no_kept_notes(conversation, server, desk, word):
    """a line that is cut loses no note that was not sent yet"""
    reader, told = word(), notes(word, 1, FULL, LONG)
    await desk.tell(reader, *told)
    zoe = await open_tab(conversation, "ana", reader, reads=False)
    await asyncio.sleep(PAUSE)

    zoe.vanish()
    await server.expect_quiet()

    tab = await open_tab(conversation, "ana again", reader)
    wanted = f"the notes that were not sent, to number {FULL}"
    first = await tab.receive(wanted)
    if first not in told:
        got = f"{tab.name} ← {shown(json.dumps(first))}"
        raise Failure(Outcome.WRONG_MESSAGE, f"{tab.name} ← {wanted}", got)
    await expect_notes(told[told.index(first) + 1 :], tab)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    wrong_message="a new note overtook those that were kept, or came twice: send both "
    "through one job, in the order of their numbers",
    silence="a note that is posted while the kept ones are sent comes after them",
    server_crashed="what is kept changes while you send it: a loop over it may fail",
    closed_early="a tab that does not read for a moment is welcome all the same",
)
async def test_new_notes_come_after_the_kept_ones(conversation, server, desk, word):
    """new notes come after the kept ones, and each comes once"""
    reader, told = word(), notes(word, 1, FULL, LONG)
    late = notes(word, FULL + 1, FULL + 3)
    await desk.tell(reader, *told)
    ana = await open_tab(conversation, "ana", reader, reads=False)
    await asyncio.sleep(PAUSE)

    # The answers may have to wait for the tab; that is what task 4 is about.
    posting = asyncio.create_task(desk.tell(reader, *late[:2]))
    await asyncio.wait([posting], timeout=PAUSE)
    ana.read_again()

    for note in told:
        await expect_notes([note], ana)
        # Nobody reads until the server has answered this: its sending has to wait again.
        server.report()
    await expect_notes(late[:2], ana)
    await posting
    second = await open_tab(conversation, "ana 2", reader)
    await desk.tell(reader, late[2])
    await expect_notes(late[2:], ana, second)


@pytest.mark.task(4, points=2)
@pytest.mark.likely(
    silence="the POST, or the tab that hears nothing, waits for the tab that does not "
    "read: the POST only leaves the note, and each tab has a job that sends",
    wrong_message="a tab that reads again has missed none of the newest 20 notes, and the "
    "others hear each of them once",
    closed_early="a tab that stops reading for a moment is not closed, and no other is",
    server_crashed="a full queue raises QueueFull: 20 notes may wait for each tab",
    loop_blocked="this call stops the event loop, and with it every tab",
)
async def test_a_tab_that_stops_reading_delays_nobody(conversation, server, desk, word):
    """a tab that stops reading delays neither desk nor tabs"""
    ana, eva = word(), word()
    told, for_eva = notes(word, 1, KEPT, LONG), notes(word, 1, KEPT, LONG)
    zoe = await open_tab(conversation, "ana 2", ana, reads=False)
    tab = await open_tab(conversation, "ana", ana)
    only = await open_tab(conversation, "eva", eva, reads=False)

    for note in told:
        await desk.tell(ana, note)
        await tab.expect(note)
    await desk.tell(eva, *for_eva)
    zoe.read_again()
    await expect_notes(told, zoe)

    only.vanish()
    await zoe.leave()
    await tab.leave()
    await server.expect_quiet()
