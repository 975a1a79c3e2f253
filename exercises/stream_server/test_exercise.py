"""The checks of the countdown: listeners who keep silent, talk, and hang up."""

import asyncio
import contextlib
import time

import pytest
from websockets.exceptions import ConnectionClosed

from exercises.grader.clients import DEADLINE
from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.serving import SETTLE_DEADLINE, until
from exercises.grader.timeline import Kind

INTERVAL = 0.04  # seconds
PAUSE = 0.01  # seconds between two texts of somebody who talks all the time
WHOLE = 5.0  # seconds; a countdown takes half a second, and ten if its interval is one
pytestmark = pytest.mark.server(environment={"INTERVAL": str(INTERVAL)})

# Between two messages there is time enough to see what happens meanwhile.
far_apart = pytest.mark.server(environment={"INTERVAL": "60"})
# uvicorn asks soon whether a client is still there, and gives up soon.
impatient = pytest.mark.server(
    environment={"INTERVAL": "60"},
    options=["--ws-ping-interval=0.5", "--ws-ping-timeout=1"],
)


def countdown(rocket, count):
    """What a listener hears, in order."""
    return [f"{rocket}: {number or 'lift-off'}" for number in range(count, -1, -1)]


async def expect_countdown(listener, texts):
    """The listener hears these texts and the end, and nothing else, and in good time."""
    try:
        async with asyncio.timeout(WHOLE):
            for text in texts:
                await listener.expect(text)
            await listener.expect_close(1000)
    except TimeoutError:
        raise Failure(
            Outcome.SILENCE,
            f"{listener.name} ← {len(texts)} messages and the end within {WHOLE:g} s",
            "the countdown was not over by then",
            listener.note(Kind.NOTE, "… still waiting"),
        ) from None


def expect_lasted(began, interval, count):
    """A countdown lasts as long as its intervals, counted from before it could begin."""
    passed = time.monotonic() - began
    # Clocks are coarse on some systems.
    if passed < 0.9 * count * interval:
        raise Failure(
            Outcome.UNEXPECTED_MESSAGE,
            f"{count} intervals of {interval:g} s take {count * interval:g} s",
            f"the countdown was over after {passed:.3f} s",
        )


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="each message is `{rocket}: ` and a number, one less each time; the last "
    "one is `{rocket}: lift-off`, where a 0 would be",
    closed_early="after lift-off, close with code 1000: returning is not enough",
    unexpected_message="lift-off is the last message: close right after it",
    silence="after lift-off there is nothing to wait for: close with code 1000",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_the_countdown_ends_with_1000(conversation, word):
    """lift-off is followed by a close with 1000"""
    rocket = word()

    for count in [3, 1]:
        ana = await conversation.join("ana", f"/launch/{rocket}/{count}")
        await expect_countdown(ana, countdown(rocket, count))


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    silence="the pace is slower than INTERVAL says: wait that long between two messages",
    unexpected_message="the pace is faster than INTERVAL says: wait that long between two "
    "messages",
    closed_early="the countdown goes on to lift-off, and only then comes the end",
    loop_blocked="this call stops the event loop: `await asyncio.sleep(…)` waits and lets "
    "the others go on",
)
async def test_the_environment_sets_the_pace(conversation, word):
    """one message each INTERVAL"""
    rocket = word()
    began = time.monotonic()
    ana = await conversation.join("ana", f"/launch/{rocket}/7")

    await expect_countdown(ana, countdown(rocket, 7))

    expect_lasted(began, INTERVAL, 7)


@far_apart
@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    silence="there is no wait before the first message, and none after the last",
    closed_early="a count of 0 is lift-off alone, and then a close with 1000",
    wrong_message="a count of 0 is lift-off alone, and then a close with 1000",
    loop_blocked="this call stops the event loop, and with it every other countdown; "
    "`await asyncio.sleep(…)` waits and lets the others go on",
)
async def test_no_wait_before_the_first_or_after_the_last(conversation, word):
    """no wait before the first message, nor after the last"""
    rocket = word()
    ana = await conversation.join("ana", f"/launch/{rocket}/7")
    ben = await conversation.join("ben", f"/launch/{rocket}/0")

    await ana.expect(f"{rocket}: 7")
    await expect_countdown(ben, [f"{rocket}: lift-off"])


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="what a countdown has counted belongs to one connection: keep it in the "
    "handler's own variables",
    loop_blocked="this call stops the event loop, and with it every other countdown",
    silence="a countdown that has begun must not hold up the next one, and INTERVAL sets "
    "the pace of each",
    closed_early="the end of one countdown is not the end of the other",
)
async def test_each_listener_has_a_countdown_of_its_own(conversation, word):
    """each listener has a countdown of its own"""
    first, second = word(), word()
    ana = await conversation.join("ana", f"/launch/{first}/9")
    await ana.expect(f"{first}: 9")

    eva = await conversation.join("eva", f"/launch/{first}/9")
    ben = await conversation.join("ben", f"/launch/{second}/3")

    await expect_countdown(ben, countdown(second, 3))
    await expect_countdown(eva, countdown(first, 9))
    await expect_countdown(ana, countdown(first, 9)[1:])


@pytest.mark.server(environment={"INTERVAL": "0.12"})
@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    silence="every word of the listener put the next message off: it has its moment, "
    "whatever comes meanwhile",
    unexpected_message="a word of the listener brought the next message forward: it has "
    "its moment, whatever comes meanwhile",
    wrong_message="what a listener says is neither answered nor repeated",
    server_crashed="receive_text() fails on a binary message: receive() takes both kinds",
    closed_early="whatever a listener says, text or binary, is no reason to end",
)
async def test_talking_changes_nothing(conversation, word):
    """a listener who talks is not answered, and changes no pace"""
    rocket = word()
    began = time.monotonic()
    ana = await conversation.join("ana", f"/launch/{rocket}/3")

    talk = asyncio.create_task(talk_all_the_time(ana, [word(), word().encode(), ""]))
    try:
        await expect_countdown(ana, countdown(rocket, 3))
    finally:
        talk.cancel()

    expect_lasted(began, 0.12, 3)


async def talk_all_the_time(client, messages):
    """Say something again and again, until the connection ends."""
    client.note(Kind.SENT, "text and binary, all the time")
    with contextlib.suppress(ConnectionClosed):
        while True:
            for message in messages:
                await client.connection.send(message)
                await asyncio.sleep(PAUSE)


@impatient
@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    closed_early="an unread message keeps uvicorn from reading on, so that it misses the "
    "answers to its pings and closes: read as long as the countdown lasts",
    silence="what the listener sent is not read: read as long as the countdown lasts, also "
    "while you wait for the next message",
    server_crashed="receive_text() fails on a binary message: receive() takes both kinds",
    wrong_message="what a listener says is neither answered nor a reason to go on",
    unexpected_message="what a listener says is not answered",
)
async def test_talking_harms_nobody(conversation, word):
    """what a listener says is read while the next message is far"""
    rocket = word()
    ana = await conversation.join("ana", f"/launch/{rocket}/3")
    await ana.expect(f"{rocket}: 3")

    for message in [word(), word().encode(), word(), word()]:
        await ana.send(message)

    await expect_read(ana, f"{rocket}: 2")


async def expect_read(client, following):
    """The server reads on: it answers pings that come after messages.

    The first may be read in one go with a message that is then left, the second not.
    """
    for _ in range(2):
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(DEADLINE):
                pong = await client.connection.ping()
                await pong
                continue
        client.note(Kind.NOTE, "sent a ping, got no pong")
        # A minute early; this says what came of the connection instead.
        await client.expect(following)


@far_apart
@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    silence="something still runs for a listener who has left: the end of reading must end "
    "the countdown, in the middle of its wait",
    server_crashed="when the listener has left there is nobody to send to and nothing to "
    "close: close after lift-off, not in `finally`, and catch WebSocketDisconnect; out of "
    "a TaskGroup it comes as a group: `except* WebSocketDisconnect`",
)
async def test_leaving_stops_the_countdown_at_once(conversation, server, word):
    """who leaves stops the countdown at once"""
    rocket = word()
    before = set(server.report().waiting)
    guests = [
        await conversation.join(name, f"/launch/{rocket}/3")
        for name in ["ana", "ben", "eva"]
    ]
    for guest in guests:
        await guest.expect(f"{rocket}: 3")
    ana, ben, eva = guests
    for guest in [ana, ben]:
        for message in [word(), word().encode(), word()]:
            await guest.send(message)

    await ana.leave()
    ben.vanish()
    await eva.leave(1001, word())

    await server.expect_quiet()
    if not await until(lambda: set(server.report().waiting) <= before, SETTLE_DEADLINE):
        raise Failure(
            Outcome.SILENCE,
            "nothing runs for listeners who have left",
            "their handlers have ended, but what they started has not",
        )


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="the end of one countdown is not the end of the others",
    closed_early="who leaves stops no countdown but the own one",
    wrong_message="who leaves changes nothing for the others",
    server_crashed="something went on sending to a listener who had left: end it with its "
    "handler, and catch WebSocketDisconnect around the whole conversation; out of a "
    "TaskGroup it comes as a group: `except* WebSocketDisconnect`",
)
async def test_the_others_count_on(conversation, server, word):
    """when listeners leave, the others count on"""
    rocket = word()
    path = f"/launch/{rocket}/4"
    ana, ben, eva = [await conversation.join(name, path) for name in ["ana", "ben", "eva"]]
    for guest in [ana, ben, eva]:
        await guest.expect(f"{rocket}: 4")
    await ana.send(word())

    await ana.leave()
    ben.vanish()

    await expect_countdown(eva, countdown(rocket, 4)[1:])
    # Whatever went on for ana and ben has had its next moment by the end of this.
    late = await conversation.join("late", path)
    await expect_countdown(late, countdown(rocket, 4))
    await server.expect_quiet()
