"""The checks of the darkroom: customers who wait, ask, talk, and walk out."""

import asyncio
import contextlib
import hashlib
import json
import time

import pytest
from websockets.exceptions import ConnectionClosed

from exercises.grader.clients import DEADLINE
from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.timeline import Kind

ROUNDS = 2000  # a print takes about a millisecond
BIG = 100_000  # prints of a film that is never finished here
FEW = 20  # prints that take long enough for another film to get on
CROWD = 12  # customers who come, and walk out together
PAUSE = 0.01  # seconds between two questions at the counter, twice as long each time
pytestmark = pytest.mark.server(environment={"ROUNDS": str(ROUNDS)})

# A print takes minutes, so that it is never finished here.
slow = pytest.mark.server(environment={"ROUNDS": str(10**9)})
# A print takes some milliseconds, so that a crowd of customers is no crowd of messages.
steady = pytest.mark.server(environment={"ROUNDS": str(10 * ROUNDS)})
# uvicorn asks soon whether a client is still there, and gives up soon.
slow_and_impatient = pytest.mark.server(
    environment={"ROUNDS": str(10**9)},
    options=["--ws-ping-interval=0.5", "--ws-ping-timeout=1"],
)


def progress(name, number, count, rounds=ROUNDS):
    """What a customer hears of a print."""
    negative = f"{name} {number}".encode()
    picture = hashlib.pbkdf2_hmac("sha256", negative, b"darkroom", rounds)
    return f"{number} of {count}: {picture.hex()[:8]}"


async def bring(conversation, name, film, count):
    """A customer who brings a film."""
    return await conversation.join(name, f"/film/{film}/{count}")


async def expect_whole(customer, film, count, rounds=ROUNDS):
    """The customer hears of all prints and of the end, and of nothing else."""
    for number in range(1, count + 1):
        await customer.expect(progress(film, number, count, rounds))
    await customer.expect_close(1000)


async def ask(asker, text):
    """What the counter answers."""
    await asker.send(text)
    heard = await asker.receive('{"films": …, "prints": …}')
    if isinstance(heard, dict) and heard.keys() == {"films", "prints"}:
        films, prints = heard["films"], heard["prints"]
        if type(films) is int and type(prints) is int:
            return films, prints
    raise Failure(
        Outcome.WRONG_MESSAGE,
        f'{asker.name} ← {{"films": …, "prints": …}}, two whole numbers',
        f"{asker.name} ← {json.dumps(heard, ensure_ascii=False)}",
    )


async def ask_until(asker, word, films):
    """Ask until the darkroom works for so many; return how many prints it has made."""
    pause, began, now = PAUSE, time.monotonic(), -1
    while time.monotonic() < began + DEADLINE:
        now, prints = await ask(asker, word())
        if now == films:
            return prints
        await asyncio.sleep(pause)
        pause *= 2
    raise Failure(
        Outcome.WRONG_MESSAGE,
        f'the counter soon says "films": {films}',
        f'after {DEADLINE:g} s it still says "films": {now}',
    )


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="each message is `{number} of {count}: `, and what `develop(name, "
    "number)` returned; the numbers go from 1 to the count",
    closed_early="after the last print, close with code 1000: returning is not enough",
    unexpected_message="the last print is the last message: close right after it",
    silence="the work has to be done before the handler's end, by something that is "
    "waited for: background tasks never run for a WebSocket",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_all_prints_are_told_of(conversation, word):
    """the customer hears of each print, and then comes 1000"""
    for count in [3, 1]:
        film = word()
        ana = await bring(conversation, "ana", film, count)
        await expect_whole(ana, film, count)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    silence="tell of each print as soon as it is made, and do not wait for all of them",
    wrong_message="the prints come in order, from 1 on",
    closed_early="a big film takes its time: the handler goes on to the last print",
    loop_blocked="this call stops the event loop: let a worker thread make one print at a "
    "time, and await each",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_a_print_is_told_of_when_it_is_made(conversation, word):
    """each print is told of as soon as it is made"""
    film = word()
    ana = await bring(conversation, "ana", film, BIG)

    for number in [1, 2, 3]:
        await ana.expect(progress(film, number, BIG))


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    wrong_message="`films` counts the customers for whom the darkroom works now, `prints` "
    "is `made`; a film that is finished counts no longer",
    silence="each text at the counter is answered, again and again",
    closed_early="the route is `/counter`, and its handler receives in a loop",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_the_counter_counts(conversation, word):
    """the counter knows how many films and prints there are"""
    film = word()
    ben = await conversation.join("ben", "/counter")
    expect_prints(await ask_until(ben, word, films=0), 0)

    for so_far in [0, 4]:
        ana = await bring(conversation, "ana", film, 4)
        await expect_whole(ana, film, 4)
        expect_prints(await ask_until(ben, word, films=0), so_far + 4)


def expect_prints(prints, wanted):
    """The counter must have said this number."""
    if prints != wanted:
        raise Failure(
            Outcome.WRONG_MESSAGE,
            f'the counter says "prints": {wanted}',
            f'it says "prints": {prints}',
        )


@slow
@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    loop_blocked="this call stops the event loop, and with it the counter: let a worker "
    "thread do it, and await its end (`asyncio.to_thread`)",
    silence="something waits for the print to be over before it answers: the counter needs "
    "nothing of the darkroom but two numbers",
    wrong_message="a film counts from when its customer has come, before its first print",
    server_crashed="the exception is in your handler; its last line stands above",
    closed_early="the counter stays open whatever happens in the darkroom",
)
async def test_the_counter_answers_in_the_middle_of_a_print(conversation, word):
    """the counter answers in the middle of a long print"""
    ben = await conversation.join("ben", "/counter")
    await ask(ben, word())

    await bring(conversation, "ana", word(), 3)

    expect_prints(await ask_until(ben, word, films=1), 0)
    # The second question follows the first answer, so it cannot share its moment.
    await ask(ben, word())
    await ask(ben, word())


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    silence="a film that has begun must not hold up the next one: no lock, and no only "
    "thread, may belong to one film from its first print to its last",
    closed_early="the darkroom works for several customers at a time",
    wrong_message="what belongs to one film is kept in its handler's own variables",
    loop_blocked="this call stops the event loop, and with it every other film",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_a_small_film_does_not_wait_for_a_big_one(conversation, word):
    """a small film does not wait for the end of a big one"""
    big, small = word(), word()
    ana = await bring(conversation, "ana", big, BIG)
    await ana.expect(progress(big, 1, BIG))

    eva = await bring(conversation, "eva", small, 3)

    await expect_whole(eva, small, 3)
    await ana.expect(progress(big, 2, BIG))


@slow_and_impatient
@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    closed_early='with 1011 "keepalive ping timeout": a message was left unread, and '
    "uvicorn misses the answers to its pings; read as long as the work lasts. With 1006: "
    "your handler has ended; iter_text() and receive_text() fail on a binary message, and "
    "a task keeps its exception to itself: receive() takes both kinds",
    silence="what the customer says is not read: read as long as the work lasts, also in "
    "the middle of a print",
    server_crashed="receive_text() fails on a binary message: receive() takes both kinds",
    wrong_message="what a customer says is not answered",
    unexpected_message="what a customer says is not answered",
    loop_blocked="this call stops the event loop: let a worker thread do it, and await "
    "its end",
)
async def test_what_customers_say_is_read(conversation, word):
    """what customers say is read, also in the middle of a print"""
    ben = await conversation.join("ben", "/counter")
    ana = await bring(conversation, "ana", word(), 3)

    for message in [word(), word().encode(), "", word()]:
        await ana.send(message)

    await expect_read(ana)
    expect_prints(await ask_until(ben, word, films=1), 0)


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
        # The print is minutes away; this says what came of the connection instead.
        await client.receive("the first print, some minutes later")


@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    unexpected_message="something works on for customers who have left. A thread cannot be "
    "cancelled: give it one print at a time, and end the loop that does so",
    wrong_message="when its customer has left, a film counts no longer: end the work when "
    "reading ends, and take the film off in `finally`",
    server_crashed="when the customer has left there is nobody to send to and nothing to "
    "close: catch WebSocketDisconnect around the whole conversation",
    silence="who leaves ends the own film and nothing else",
    closed_early="who leaves ends the own film and nothing else",
)
async def test_leaving_ends_the_work(conversation, server, word):
    """who leaves ends the work, and nobody else's"""
    ben = await conversation.join("ben", "/counter")
    ana = await bring(conversation, "ana", word(), BIG)
    eva = await bring(conversation, "eva", word(), BIG)
    for customer in [ana, eva]:
        await customer.receive("the first print")
        await customer.send(word())

    await ana.leave()
    eva.vanish()

    before = await ask_until(ben, word, films=0)
    # Whatever went on for ana and eva would get on meanwhile.
    film = word()
    zoe = await bring(conversation, "zoe", film, FEW)
    await expect_whole(zoe, film, FEW)
    after = await ask_until(ben, word, films=0)

    # A print of each of the two may have been in the works.
    if after > before + FEW + 2:
        raise Failure(
            Outcome.UNEXPECTED_MESSAGE,
            f"{FEW} prints for zoe, and at most one more for each of the two who left",
            f"{after - before} prints were made",
        )
    await ben.leave()
    await server.expect_quiet()


@steady
@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="threads still work for customers who have left, and those who came later "
    "wait for one: give a thread one print at a time, not a film",
    wrong_message="a film of a customer who has left counts no longer, however many leave",
    server_crashed="when the customer has left there is nobody to send to and nothing to "
    "close: catch WebSocketDisconnect around the whole conversation",
    closed_early="who leaves ends the own film and nothing else",
    unexpected_message="something works on for customers who have left",
)
async def test_who_left_holds_up_nobody(conversation, server, word):
    """a crowd that left holds up nobody"""
    ben = await conversation.join("ben", "/counter")
    crowd = [
        await bring(conversation, f"guest {number}", word(), BIG) for number in range(CROWD)
    ]
    await ask_until(ben, word, films=CROWD)

    for number, guest in enumerate(crowd):
        if number % 2:
            guest.vanish()
    await asyncio.gather(*(guest.leave() for guest in crowd[::2]))

    film = word()
    zoe = await bring(conversation, "zoe", film, 3)
    await expect_whole(zoe, film, 3, 10 * ROUNDS)
    await ask_until(ben, word, films=0)
    await ben.leave()
    await server.expect_quiet()
