"""The checks of the stage: clients that behave as badly as telephones do."""

import pytest

from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.timeline import Kind, shown

PATH = "/ws/stage"
FULL = 120  # remarks of 64 KiB: twice what the buffers of a guest who does not read hold
MANY = 250  # the same, and what waits in a queue of a hundred as well
MOMENT = 0.3  # seconds after which a broadcast counts as stuck

# Advice.
STALLED = (
    "the broadcast awaits every guest in turn or together, so the slowest sets the pace: "
    "give each guest a queue and a task that writes"
)


def remark(word):
    """A remark of 64 KiB."""
    return f"{word()} ".ljust(64 * 1024, "~")


async def join(conversation, name):
    return await conversation.join(name, PATH)


@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    wrong_message="everybody hears `Someone: `, one space, and the text, in the order of "
    "the texts: a task for each of them gets ahead of another",
    silence="the text must reach everybody: keep all connections, and send to each",
    closed_early="the handler returned: receive in a loop, for as long as the guest stays",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_everybody_hears_everything(conversation, word):
    """everybody hears every remark, in order"""
    guests = [await conversation.join(name, PATH) for name in ["ana", "ben", "zoe"]]
    texts = [word() for _ in range(5)]

    for text in texts:
        await guests[0].send(text)

    for guest in guests:
        for text in texts:
            await guest.expect(f"Someone: {text}")


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    silence="when receiving raises WebSocketDisconnect, the guest has left: tell the rest",
    server_crashed="catch WebSocketDisconnect, and take the guest out of the collection "
    "before you tell the others",
    closed_early="sending to a guest who has left raises in the handler of another one",
)
async def test_the_rest_hear_who_left(conversation, server, word):
    """when a guest leaves, the rest hear it, and go on"""
    ana, ben, zoe = [await conversation.join(name, PATH) for name in ["ana", "ben", "zoe"]]

    await zoe.leave()
    await ana.expect("Someone left")
    await ben.expect("Someone left")

    text = word()
    await ana.send(text)
    await ben.expect(f"Someone: {text}")
    await ana.leave()
    await ben.expect("Someone left")
    await ben.leave()
    await server.expect_quiet()


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    server_crashed="receive_text() fails on a binary message, and whoever is not taken out "
    "of the collection in `finally` stays in it as a ghost",
    silence="close the sender of a binary message with 1003, and tell the rest of it",
    wrong_message="the close code for data of the wrong kind is 1003 (unsupported data), "
    "and the rest hear `Someone left` once: tell it in one place alone",
    closed_early="the sender of a binary message is closed with code 1003, and nobody else",
    unexpected_message="a binary message is broadcast to nobody; close with code 1003",
)
async def test_a_binary_message_harms_its_sender_alone(conversation, word):
    """a binary message closes its sender with 1003, and nobody else"""
    ana, ben, zoe = [await conversation.join(name, PATH) for name in ["ana", "ben", "zoe"]]

    await zoe.send(word().encode())
    await zoe.expect_close(1003)
    await ana.expect("Someone left")
    await ben.expect("Someone left")

    text = word()
    await ana.send(text)
    await ben.expect(f"Someone: {text}")
    await ana.expect(f"Someone: {text}")


@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    closed_early="sending to zoe failed inside ana's handler, and ended ana: catch the "
    "failure of each send where it happens",
    server_crashed="zoe's end broke a broadcast off: catch the failure of each send where "
    "it happens, and loop over a copy of the collection; if the log says that it was not "
    "there to remove, two places took the guest out: let one do it",
    silence="a send to a guest who is gone must not end the broadcast to the others",
    wrong_message="a guest who is gone is told of once, and remarks are not lost over it",
)
async def test_a_line_cut_during_a_broadcast_harms_nobody_else(conversation, word):
    """a line that is cut during a broadcast harms nobody else"""
    ana = await join(conversation, "ana")
    ben = await join(conversation, "ben")
    zoe = await conversation.join("zoe", PATH, reads=False)

    last = await speak_until_stuck(ana, ben, word)
    zoe.vanish()

    await still_heard(ana, ben, last, word(), left=1)


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    server_crashed="guests came and went during a broadcast: loop over a copy, and catch "
    "what sending to a guest who has gone raises; if the log says that it was not there to "
    "remove, two places took the guest out: let one do it",
    closed_early="guests came and went while a loop over them waited, and the handler of "
    "the speaker got the exception: loop over a copy",
    silence="guests came and went while a loop over them waited, and others were skipped",
    wrong_message="guests came and went while a loop over them waited, and one was skipped",
)
async def test_guests_come_and_go_during_a_broadcast(conversation, server, word):
    """guests come and go during a broadcast, and nobody misses a word"""
    ana = await join(conversation, "ana")
    early = await join(conversation, "early")
    zoe = await conversation.join("zoe", PATH, reads=False)
    ben = await join(conversation, "ben")

    last = await speak_until_stuck(ana, ben, word)
    late = [await conversation.join(f"late {number}", PATH) for number in range(5)]
    early.vanish()
    late[0].vanish()
    zoe.vanish()

    await still_heard(ana, ben, last, word(), left=3)
    for guest in [ana, ben, *late[1:]]:
        await guest.leave()
    await server.expect_quiet()


async def speak_until_stuck(speaker, listener, word):
    """Speak until a broadcast waits for the guest who does not read, if one ever does.

    Returns the last remark, which not everybody may have heard.
    """
    for _ in range(FULL):
        text = remark(word)
        await speaker.send(text)
        for guest in [speaker, listener]:
            # If zoe was dropped, this is the place where the others may hear of it.
            if not await guest.hears_within(MOMENT, f"Someone: {text}", but="Someone left"):
                return text
    return text


async def still_heard(speaker, listener, last, text, left):
    """Both hear the last remark and another one, and of each guest once that it left."""
    await speaker.send(text)
    for guest in [speaker, listener]:
        wanted = [f"Someone: {last}", f"Someone: {text}"]
        while not all(times(guest, remark) for remark in wanted) or (
            times(guest, "Someone left") < left
        ):
            await guest.receive(f"all that {speaker.name} said, and that {left} left")
        if (told := times(guest, "Someone left")) > left:
            expected = f'{guest.name} ← "Someone left", {left} times in all'
            raise Failure(Outcome.WRONG_MESSAGE, expected, f"{told} times")


def times(guest, message):
    """How often a guest has heard a message since it joined."""
    mine = (guest.name, Kind.RECEIVED, shown(message))
    return sum((e.who, e.kind, e.text) == mine for e in guest.timeline)


@pytest.mark.task(3, points=3)
@pytest.mark.likely(
    silence=f"{STALLED}; if there are queues, put into them without waiting",
    closed_early="the guest who does not read is nobody else's business: no close and no "
    "failing send of his may end another's handler",
    server_crashed="a full queue raises QueueFull: decide what happens to that guest, in "
    "the broadcast and not in the handler of the speaker",
    loop_blocked="this call stops the event loop, and with it everybody",
    wrong_message="a remark was lost: only the guest who does not read may miss any",
)
async def test_a_guest_who_stops_reading_delays_nobody(conversation, word):
    """a guest who stops reading delays nobody"""
    ana = await join(conversation, "ana")
    ben = await join(conversation, "ben")
    await conversation.join("zoe", PATH, reads=False)

    await speak(ana, [ana, ben], MANY, word)


async def speak(speaker, guests, number, word):
    """So many remarks, each of which these guests hear before the next is made."""
    for _ in range(number):
        text = remark(word)
        await speaker.send(text)
        for guest in guests:
            # If zoe was dropped, this is the place where the others may hear of it.
            await guest.expect(f"Someone: {text}", but="Someone left")


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="a task or a handler of a guest who left is still running: cancel what you "
    "started, in `finally`",
    server_crashed="a task that nobody looks after failed: catch what sending raises",
)
async def test_nothing_is_left_of_those_who_left(conversation, server, word):
    """nothing is left running of guests who left, read or not"""
    ana = await join(conversation, "ana")
    zoe = await conversation.join("zoe", PATH, reads=False)
    try:
        await speak(ana, [ana], FULL, word)
    except Failure as failure:
        # Nobody has left yet: it is the broadcast that waits.
        if failure.outcome is Outcome.SILENCE and not server.blocked:
            failure.likely = STALLED
        raise

    zoe.vanish()
    await ana.leave()

    await server.expect_quiet()
