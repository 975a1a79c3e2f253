"""The checks of the volcano: listeners who come, talk, leave, and read slowly."""

import asyncio
import contextlib
import re
import time

import pytest
from websockets.exceptions import ConnectionClosed

from exercises.grader.clients import DEADLINE
from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.timeline import Kind

INTERVAL = 0.05  # seconds
LENGTH = 4 * 1024 * 1024  # characters of a large reading: as much as the buffers hold
MANY = 8  # large readings while somebody does not read
ON_THE_WAY = 4  # of them, at most: two in the buffers, one being sent, one to spare
SLOWLY = 8.0  # seconds for a reading that comes through full buffers
FAST = 0.02  # seconds
A_WHILE = 0.3  # seconds in which nobody listens
READING = re.compile(r"([1-9][0-9]*): [0-9a-f]{8}")  # how it begins
pytestmark = pytest.mark.server(environment={"INTERVAL": str(INTERVAL)})

# Between two readings there is time enough to see what happens meanwhile.
far_apart = pytest.mark.server(environment={"INTERVAL": "60"})
# uvicorn asks soon whether a client is still there, and gives up soon.
impatient = pytest.mark.server(
    environment={"INTERVAL": "60"},
    options=["--ws-ping-interval=0.5", "--ws-ping-timeout=1"],
)
fast = pytest.mark.server(environment={"INTERVAL": str(FAST)})
large = pytest.mark.server(environment={"INTERVAL": str(INTERVAL), "LENGTH": str(LENGTH)})


async def listen(conversation, name, **options):
    return await conversation.join(name, "/volcano", **options)


async def reading(listener, within=DEADLINE):
    """The next reading: its number and its text."""
    wanted = "{number}: {tremor}"
    text = await listener.receive(wanted, within)
    found = READING.match(text) if isinstance(text, str) else None
    if found is None:
        got = f"{listener.name} ← {str(text):.60}"
        raise Failure(Outcome.WRONG_MESSAGE, f"{listener.name} ← {wanted}", got)
    return int(found[1]), text


async def reading_from(listener, number):
    """All that is heard up to the reading with this number, or a later one."""
    heard = [await reading(listener)]
    while heard[-1][0] < number:
        heard.append(await reading(listener))
        (before, _), (now, _) = heard[-2:]
        if now <= before:
            raise Failure(
                Outcome.WRONG_MESSAGE,
                f"{listener.name} hears newer readings only, after {before}",
                f"{listener.name} ← reading {now}",
            )
    return heard


def expect_number(listener, heard, wanted):
    """The listener must have heard the reading with this number."""
    if heard != wanted:
        raise Failure(
            Outcome.WRONG_MESSAGE,
            f"{listener.name} ← reading {wanted}",
            f"{listener.name} ← reading {heard}",
        )


@far_apart
@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="all hear the same readings: keep the newest one for whoever comes, and "
    "call `measure()` once for all of them and not in each handler",
    silence="whoever comes hears the newest reading at once, and waits after that",
    closed_early="the handler goes on for as long as its listener stays",
    server_crashed="the exception is in your handler; its last line stands above",
    loop_blocked="this call stops the event loop, and with it everybody: "
    "`await asyncio.sleep(…)` waits and lets the others go on",
)
async def test_who_comes_hears_the_newest_at_once(conversation):
    """who comes hears the newest reading at once"""
    ana = await listen(conversation, "ana")
    number, text = await reading(ana)
    expect_number(ana, number, 1)

    for name in ["ben", "eva"]:
        newcomer = await listen(conversation, name)
        await newcomer.expect(text)


@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    unexpected_message="somebody takes readings besides the one task for all: start it "
    "when the first listener comes, and only then; between two readings lies INTERVAL",
    wrong_message="one task takes the readings, and all listeners hear the same ones",
    silence="everybody hears every reading: one each INTERVAL",
    closed_early="the handler goes on for as long as its listener stays",
    server_crashed="the exception is in your code; its last line stands above",
    loop_blocked="this call stops the event loop, and with it everybody: "
    "`await asyncio.sleep(…)` waits and lets the others go on",
)
async def test_one_reading_serves_everybody(conversation):
    """one reading each INTERVAL serves everybody"""
    began = time.monotonic()
    names = ["ana", "ben", "eva", "ida", "leo"]
    crowd = [await listen(conversation, name) for name in names]

    heard = [await reading_from(listener, 11) for listener in crowd]

    # Clocks are coarse on some systems.
    earliest = 0.9 * 10 * INTERVAL
    passed = time.monotonic() - began
    if passed < earliest:
        raise Failure(
            Outcome.UNEXPECTED_MESSAGE,
            f"reading 11 is taken {10 * INTERVAL:g} s after reading 1",
            f"it was there after {passed:.3f} s, with {len(crowd)} listeners",
        )
    ana, *others = [dict(each) for each in heard]
    for listener, theirs in zip(crowd[1:], others, strict=True):
        both = ana.keys() & theirs.keys()
        # A busy machine may make somebody miss one, but not most of them.
        if len(both) < 5 or any(ana[number] != theirs[number] for number in both):
            raise Failure(
                Outcome.WRONG_MESSAGE,
                f"ana and {listener.name} hear the same readings",
                f"ana heard {shown(ana)}, {listener.name} {shown(theirs)}, "
                f"and {len(both)} numbers are the same",
            )


def shown(heard):
    """The numbers of readings, in order."""
    return " ".join(map(str, sorted(heard)))


@impatient
@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    closed_early="an unread message keeps uvicorn from reading on, so that it misses the "
    "answers to its pings and closes: read as long as the listener stays",
    silence="what the listener says is not read: read as long as the listener stays, also "
    "while the next reading is far away",
    server_crashed="receive_text() fails on a binary message: receive() takes both kinds",
    wrong_message="what a listener says is not answered, and brings no reading forward",
    unexpected_message="what a listener says is not answered",
)
async def test_what_listeners_say_is_read(conversation, word):
    """what listeners say is read while the next reading is far"""
    ana = await listen(conversation, "ana")
    _, text = await reading(ana)

    for message in [word(), word().encode(), "", word()]:
        await ana.send(message)

    await expect_read(ana)
    ben = await listen(conversation, "ben")
    await ben.expect(text)


async def expect_read(client):
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
        # The next reading is a minute away; this says what came of the connection instead.
        await client.receive("the next reading, a minute later")


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    silence="a listener who leaves takes nobody along: the task that takes the readings "
    "belongs to none of them, and each failing send concerns one; handlers end",
    closed_early="a listener who leaves takes nobody along: catch the failure of a send "
    "where it happens",
    server_crashed="when a listener has gone there is nobody to send to and nothing to "
    "close: catch WebSocketDisconnect around the whole conversation",
    wrong_message="who leaves changes nothing for the others",
)
async def test_the_others_listen_on(conversation, server, word):
    """when listeners leave, the others hear every reading"""
    ana, ben, eva, ida = [
        await listen(conversation, name) for name in ["ana", "ben", "eva", "ida"]
    ]
    for listener in [ana, ben, eva, ida]:
        await reading(listener)
    await ana.send(word())

    await ana.leave()
    ben.vanish()

    number, _ = (await reading_from(eva, 3))[-1]
    await reading_from(ida, number + 3)
    await reading_from(eva, number + 3)
    await eva.leave()
    ida.vanish()
    await server.expect_quiet()


@far_apart
@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    wrong_message="when nobody listened, the newest reading is an old one: whoever comes "
    "first then hears a new one, and its number is the next",
    silence="the handler ends when its listener has left; whoever comes first after that "
    "hears a new reading at once",
    server_crashed="when a listener has gone there is nobody to send to and nothing to "
    "close: catch WebSocketDisconnect around the whole conversation",
    closed_early="whoever comes after a pause is as welcome as the first",
)
async def test_the_first_after_a_pause_hears_a_new_reading(conversation, server):
    """who comes when nobody listened hears a new reading at once"""
    for number, name in enumerate(["ana", "ben", "eva"], 1):
        listener = await listen(conversation, name)
        expect_number(listener, (await reading(listener))[0], number)

        if number % 2:
            await listener.leave()
        else:
            listener.vanish()
        await server.expect_quiet()


@fast
@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    unexpected_message="readings were taken while nobody listened: the last one who leaves "
    "ends the task that takes them",
    wrong_message="whoever comes first after a pause hears a new reading",
    silence="the readings start again with whoever comes first after a pause; and when all "
    "have left, nothing goes on running: a handler ends with all that it started",
    closed_early="whoever comes after a pause is as welcome as the first",
    server_crashed="the exception is in your code; its last line stands above",
)
async def test_nothing_is_measured_while_nobody_listens(conversation, server):
    """no reading is taken while nobody listens"""
    idle = server.report()
    began = time.monotonic()
    ana = await listen(conversation, "ana")
    ben = await listen(conversation, "ben")
    await reading_from(ana, 2)
    await ana.leave()
    before, _ = (await reading_from(ben, 4))[-1]
    ben.vanish()
    await server.expect_quiet()
    # No more can have been taken by now, however busy the machine is.
    most = 1.1 * (time.monotonic() - began) / FAST + 3

    await asyncio.sleep(A_WHILE)

    eva = await listen(conversation, "eva")
    after, _ = await reading(eva)
    wanted = f"eva ← the reading after {before}, or soon after, for nobody listened"
    if after > most:
        got = f"eva ← reading {after}"
        raise Failure(Outcome.UNEXPECTED_MESSAGE, wanted, got)
    if after <= before:
        raise Failure(Outcome.WRONG_MESSAGE, wanted, f"eva ← reading {after}")
    await reading_from(eva, after + 2)
    await eva.leave()
    await server.expect_quiet(since=idle)


@large
@pytest.mark.task(4, points=1)
@pytest.mark.likely(
    silence="the task that takes the readings waits for the slowest listener: let each "
    "listener have a task that sends, and wait for none of them",
    closed_early="the listener who does not read is nobody else's business",
    server_crashed="a listener who does not read, and then is gone, concerns its own "
    "handler: decide there what happens, and catch what sending raises",
    wrong_message="who reads hears newer and newer readings, whatever others do",
    loop_blocked="this call stops the event loop, and with it everybody",
)
async def test_a_slow_listener_delays_nobody(conversation, server):
    """a listener who stops reading delays nobody"""
    zoe = await listen(conversation, "zoe", reads=False)
    ana = await listen(conversation, "ana")
    number, _ = await reading(ana)

    number, _ = (await reading_from(ana, number + MANY))[-1]

    zoe.vanish()
    await reading_from(ana, number + 3)
    await ana.leave()
    await server.expect_quiet()


@large
@pytest.mark.task(4, points=2)
@pytest.mark.likely(
    wrong_message="old readings waited for her: keep no queue, or one of a single place in "
    "which a new reading takes the place of the old one",
    silence="who reads again hears the newest reading, and all that follow",
    closed_early="who does not read stays connected, and hears the newest later on",
    server_crashed="a full queue raises QueueFull: a new reading takes the place of the "
    "old one",
    unexpected_message="old readings waited for her: keep no queue, only the newest",
    loop_blocked="this call stops the event loop, and with it everybody",
)
async def test_a_slow_listener_hears_the_newest(conversation):
    """who reads again hears the newest reading, and no backlog"""
    # She comes first, so that all that Ana hears is taken meanwhile.
    zoe = await listen(conversation, "zoe", reads=False)
    ana = await listen(conversation, "ana")
    number, _ = await reading(ana)
    newest, _ = (await reading_from(ana, number + MANY))[-1]

    # Ana has done her part, and would only keep the machine busy.
    ana.vanish()
    zoe.read_again()

    old = 0
    while (await reading(zoe, SLOWLY))[0] < newest:
        old += 1
        if old > ON_THE_WAY:
            raise Failure(
                Outcome.WRONG_MESSAGE,
                f"zoe ← reading {newest} or a newer one, after what was on the way",
                f"{old} older ones, of {MANY} that were taken meanwhile",
            )
    await reading(zoe, SLOWLY)
