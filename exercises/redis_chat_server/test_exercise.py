"""The checks of the radio net: two masts, and a Redis that goes away."""

import asyncio
import itertools
import json
import time
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest
from redis.asyncio import Redis

from exercises.grader.clients import DEADLINE, Conversation
from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.redis_beside import RedisBeside
from exercises.grader.serving import SETTLE_DEADLINE, until
from exercises.grader.timeline import Kind

LONG = 7.0  # seconds for what may take five
SLOW = 0.5  # seconds in which Redis answers nobody
MOMENT = 0.5  # seconds for a call to arrive at Redis, at most
POLL = 0.01  # seconds
ROUNDS = 10  # rescuers who come as the one before goes

pytestmark = pytest.mark.server(number=2, beside=RedisBeside)


@pytest.fixture
async def masts(servers, timeline):
    """The rescuers on each mast."""
    async with AsyncExitStack() as stack:
        both = [Conversation(server.url, timeline) for server in servers]
        yield [await stack.enter_async_context(mast) for mast in both]


class Outage:
    """Redis goes away and comes back, and the rescuers are told."""

    def __init__(self, beside, timeline, patience):
        self.beside, self.timeline, self.patience = beside, timeline, patience

    async def tells(self, rescuer, text):
        """Expect that this is the next thing that a rescuer hears, in good time."""
        with self.patience:
            await rescuer.expect(text, self.patience.seconds)

    async def begins(self, *rescuers):
        """Redis goes away, and these are told."""
        self.timeline.record("redis", Kind.NOTE, "goes away")
        await asyncio.to_thread(self.beside.kill)
        for rescuer in rescuers:
            await self.tells(rescuer, "(no link)")

    async def ends(self, *rescuers):
        """Redis comes back, and these are told."""
        self.timeline.record("redis", Kind.NOTE, "is back")
        await asyncio.to_thread(self.beside.start)
        for rescuer in rescuers:
            await self.tells(rescuer, "(link again)")


class Patience:
    """How long to wait for what may take five seconds.

    Whoever lets one check wait for nothing keeps the others waiting for less.
    """

    def __init__(self):
        self.seconds = LONG

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        if isinstance(error, Failure) and error.outcome is Outcome.SILENCE:
            self.seconds = DEADLINE


@pytest.fixture(scope="module")
def patience():
    """What the checks of one answer know of each other."""
    return Patience()


@pytest.fixture
def outage(beside, timeline, patience):
    """Redis, which goes away and comes back."""
    return Outage(beside, timeline, patience)


@pytest.fixture
async def redis(beside):
    """A line to Redis, to ask what it counts and to slow it down."""
    async with Redis.from_url(beside.url) as redis:
        yield redis


async def tune(masts, name, band):
    """Connect to a band; the name ends with the number of the mast."""
    mast = masts[int(name[-1]) - 1]
    return await mast.join(name, f"/bands/{quote(band, safe='')}")


async def call(caller, band, text, *others):
    """Somebody calls, and it is the next thing that everybody hears."""
    await caller.send(text)
    for rescuer in [caller, *others]:
        await rescuer.expect(f"{band}: {text}")


async def each_calls(everybody, band, text):
    """One after the other calls, and everybody hears it."""
    for caller in everybody:
        others = [rescuer for rescuer in everybody if rescuer is not caller]
        await call(caller, band, text, *others)


async def expect_subscriptions(redis, timeline, *masts):
    """Expect as many channels as numbers, each with so many masts subscribed."""
    wanted = sorted(masts)
    end = time.monotonic() + DEADLINE
    # A time limit around it would cancel the question, and redis-py may not notice that.
    while (counted := await count_subscriptions(redis)) != (wanted, 0):
        if time.monotonic() > end:
            raise Failure(
                Outcome.WRONG_MESSAGE,
                described(wanted, 0),
                described(*counted),
                timeline.record("redis", Kind.NOTE, "counts its subscriptions"),
            )
        await asyncio.sleep(POLL)


async def subscribed(redis, number, *rescuers):
    """Wait for so many subscriptions, but not for ever: other checks judge them."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end and all(rescuer.code is None for rescuer in rescuers):
        subscribers, patterns = await count_subscriptions(redis)
        if sum(subscribers) + patterns >= number:
            break
        await asyncio.sleep(POLL)


async def count_subscriptions(redis):
    """The subscribers of each channel, and the number of patterns."""
    channels = await redis.pubsub_channels()
    counted = await redis.pubsub_numsub(*channels) if channels else []
    return sorted(number for _, number in counted), await redis.pubsub_numpat()


def described(subscribers, patterns):
    """What Redis counts, in words."""
    found = counted(len(subscribers), "channel")
    found += ", subscribed by " + ", ".join(map(str, subscribers)) if subscribers else ""
    return found + (f", and {counted(patterns, 'pattern')}" if patterns else "")


def counted(number, what):
    """So many of something, in words."""
    return f"{number or 'no'} {what}{'' if number < 2 else 's'}"


@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    silence="the other mast is another process, with other variables: a call has to go "
    "through Redis, and each mast has to be subscribed",
    wrong_message="each call arrives once, as `{band}: ` and the text. Does the sender's "
    "own mast send it on twice, or bytes as they are printed, or Redis's confirmations?",
    closed_early="the handler receives for as long as its rescuer is there, and something "
    "else listens to Redis meanwhile",
    server_crashed="the exception is in your handler; its last line stands above",
    loop_blocked="this client of Redis blocks the event loop: take the one of "
    "redis.asyncio, and await it",
)
async def test_a_call_is_heard_on_both_masts(masts, redis, word):
    """a call is heard on both masts, once"""
    band = word()
    everybody = [await tune(masts, name, band) for name in ["ana 1", "ben 2", "eva 1"]]
    await subscribed(redis, 2, *everybody)

    for text in [word(), "", "žluťoučký 🐎", f'{{"type": "{word()}"}}', word(), "1"]:
        await each_calls(everybody, band, text)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="a mast that sends a call to its own rescuers itself is ahead of Redis: "
    "publish it, and send on what Redis says, to the sender too",
    silence="a call that Redis takes late is late, and not lost",
    closed_early="that Redis takes its time is no reason to close",
    server_crashed="that Redis takes its time is no error",
    loop_blocked="this call waits for Redis and stops the event loop: await it",
)
async def test_everybody_hears_one_order(masts, redis, timeline, word):
    """two speak at the same time, and everybody hears one order"""
    band, first, second = word(), word(), word()
    ana, ben = [await tune(masts, name, band) for name in ["ana 1", "ben 2"]]
    await subscribed(redis, 2, ana, ben)
    await call(ana, band, word(), ben)
    await call(ben, band, word(), ana)

    timeline.record("redis", Kind.NOTE, "takes no calls for a moment")
    await redis.client_pause(int(LONG * 1000), all=False)
    await ana.send(first)
    await ben.send(second)
    await both_published(redis)
    await redis.client_unpause()

    calls = {f"{band}: {first}", f"{band}: {second}"}
    wanted = "everybody hears " + " and ".join(sorted(calls)) + " in one order"
    orders = [await hear(rescuer, calls) for rescuer in [ana, ben]]
    if orders[0] != orders[1]:
        got = "two orders: " + " and ".join(map(json.dumps, orders))
        raise Failure(Outcome.WRONG_MESSAGE, wanted, got)


async def both_published(redis):
    """Wait until Redis keeps two waiting, but not for ever: it could be none."""
    try:
        async with asyncio.timeout(MOMENT):
            while sum("b" in one["flags"] for one in await redis.client_list()) < 2:
                await asyncio.sleep(POLL)
    except TimeoutError:
        pass


async def hear(rescuer, calls):
    """All of these calls, in the order in which they came."""
    heard = []
    for _ in calls:
        left = sorted(calls - set(heard))
        text = await rescuer.receive(" or ".join(left))
        if text not in left:
            wanted = f"{rescuer.name} ← " + " or ".join(left)
            raise Failure(Outcome.WRONG_MESSAGE, wanted, f"{rescuer.name} ← {text}")
        heard.append(text)
    return heard


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    wrong_message="each band has a channel of its own, whatever characters it has in its "
    "name, and each rescuer hears the own band alone",
    silence="a band may be called anything that a path can say",
    closed_early="a band may be called anything that a path can say",
    server_crashed="a band may be called anything that a path can say",
    loop_blocked="this call stops the event loop, and with it everybody on this mast",
)
async def test_bands_hear_nothing_of_each_other(masts, redis, word):
    """bands hear nothing of each other"""
    first = word()
    bands = [first, f"{first}*", "*", f"{first[:-1]}?", f"{first}:{first}", f"{first} ž"]
    pairs = [
        [await tune(masts, f"{number} on {mast}", band) for mast in (1, 2)]
        for number, band in enumerate(bands)
    ]
    await subscribed(redis, 2 * len(pairs), *itertools.chain(*pairs))

    for _ in range(2):
        for band, (one, two) in zip(bands, pairs, strict=True):
            await call(one, band, word(), two)
            await call(two, band, word(), one)


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    wrong_message="the first rescuer of a band subscribes the mast, the others share that "
    "subscription, and the last who goes ends it; no pattern, no other channel",
    silence="those who stay hear on when others go; a handler ends when its rescuer leaves",
    closed_early="those who stay are not concerned by those who go",
    server_crashed="when its rescuer leaves, a handler ends quietly, and so does what it "
    "started",
    loop_blocked="this call stops the event loop, and with it everybody on this mast",
)
async def test_a_mast_subscribes_once_a_band(masts, servers, redis, timeline, word):
    """a mast is subscribed once a band, as long as needed"""
    band, other = word(), word()
    names = ["ana 1", "ann 1", "abe 1", "ben 2"]
    ana, ann, abe, ben = [await tune(masts, name, band) for name in names]
    await expect_subscriptions(redis, timeline, 2)
    eva = await tune(masts, "eva 2", other)
    await expect_subscriptions(redis, timeline, 1, 2)

    await abe.leave()
    ben.vanish()
    await expect_subscriptions(redis, timeline, 1, 1)
    await call(ana, band, word(), ann)
    ana.vanish()
    await until(lambda: servers[0].report().handlers <= 1, SETTLE_DEADLINE)
    await call(ann, band, word())
    await ann.leave()
    await expect_subscriptions(redis, timeline, 1)

    await call(eva, other, word())
    await eva.leave()
    await expect_subscriptions(redis, timeline)
    for server in servers:
        await server.expect_quiet()


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    silence="the handshake was complete before Redis had confirmed the subscription, and "
    "what was called meanwhile is lost: subscribe, wait for the confirmation, then accept",
    wrong_message="a rescuer hears every call once the handshake is complete",
    closed_early="that Redis takes its time is no reason to refuse or to close",
    server_crashed="that Redis takes its time is no error",
    loop_blocked="this call waits for Redis and stops the event loop: await it",
)
async def test_who_is_connected_misses_nothing(masts, redis, timeline, word):
    """who is connected misses nothing, however slow Redis is"""
    band = word()
    ben = await tune(masts, "ben 2", band)
    await call(ben, band, word())

    timeline.record("redis", Kind.NOTE, f"answers nobody for {SLOW:g} s")
    await redis.client_pause(int(SLOW * 1000))
    ana = await tune(masts, "ana 1", band)

    await call(ben, band, word(), ana)
    await call(ana, band, word(), ben)


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    silence="the subscription ended with the one who left, and another rescuer had just "
    "come: look who is there and change it with no `await` between",
    wrong_message="whoever comes hears what is called from then on, once; and if there are "
    "too many subscriptions: the task of those who left still holds one, cancel it",
    closed_early="one who comes is welcome, also when the last one is just leaving",
    server_crashed="one came while the last one was leaving: what one handler takes away, "
    "the other had in its hands. Look and change with no `await` between",
    loop_blocked="this call stops the event loop, and with it everybody on this mast",
)
async def test_one_comes_as_the_last_goes(masts, servers, redis, timeline, word):
    """one comes as the last one goes, and misses nothing"""
    band = word()
    ben = await tune(masts, "ben 2", band)
    last = await tune(masts, "rescuer 0 on 1", band)

    for number in range(1, ROUNDS + 1):
        coming = tune(masts, f"rescuer {number} on 1", band)
        last = (await asyncio.gather(last.leave(), coming))[1]
        await call(ben, band, word(), last)

    await expect_subscriptions(redis, timeline, 2)
    await last.leave()
    await ben.leave()
    await expect_subscriptions(redis, timeline)
    for server in servers:
        await server.expect_quiet()


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="when Redis goes, `get_message` and `publish` raise: tell it, and try again "
    "until the subscription stands. The client's own `retry` may take too long for that",
    server_crashed="Redis has gone, and that raises a RedisError in the task that listens "
    "and in the handler that publishes: both have to go on",
    closed_early="that Redis has gone is no reason to close, nor for a handler to end: "
    "catch the RedisError where you publish",
    wrong_message="(no link) and (link again) are told once, to everybody; (not sent) to "
    "the one who called; and who has heard (link again) hears all that follows",
    loop_blocked="wait for Redis with `await`, also when you try again",
)
async def test_the_net_goes_on_after_an_outage(masts, outage, redis, timeline, word):
    """Redis goes away: all are told, and go on when it is back"""
    band, other = word(), word()
    names = ["ana 1", "ann 1", "ben 2"]
    ana, ann, ben = [await tune(masts, name, band) for name in names]
    eva = await tune(masts, "eva 2", other)
    await call(ana, band, word(), ann, ben)

    await outage.begins(ana, ann, ben, eva)
    for caller in [ana, eva]:
        await caller.send(word())
        await outage.tells(caller, "(not sent)")
    await outage.ends(ana, ann, ben, eva)

    await call(ben, band, word(), ana, ann)
    await call(ana, band, word(), ann, ben)
    await call(eva, other, word())
    await expect_subscriptions(redis, timeline, 1, 2)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="Redis was back and took a call, but this mast was not subscribed again, and "
    "nobody heard it: as long as the subscription does not stand, answer `(not sent)`",
    server_crashed="Redis has gone, and that raises a RedisError where you publish",
    closed_early="that Redis has gone is no reason to close",
    wrong_message="each call is answered once: with `(not sent)`, or with the call itself "
    "as everybody hears it; and `(link again)` is told once",
    loop_blocked="wait for Redis with `await`, also when you try again",
)
async def test_no_call_vanishes(masts, outage, beside, timeline, word):
    """each call is answered, also while Redis comes back"""
    band = word()
    ana = await tune(masts, "ana 1", band)
    await outage.begins(ana)

    timeline.record("redis", Kind.NOTE, "comes back")
    coming = asyncio.create_task(asyncio.to_thread(beside.start))
    try:
        with outage.patience as patience:
            await call_until_told(ana, band, word, patience.seconds)
    finally:
        await coming

    await call(ana, band, word())


async def call_until_told(caller, band, word, seconds):
    """Call again and again, and have each call answered, until the link is there again."""
    end, heard = time.monotonic() + seconds, []
    while "(link again)" not in heard:
        if time.monotonic() > end:
            raise Failure(
                Outcome.SILENCE,
                f'{caller.name} ← "(link again)" within {seconds:g} s',
                "Redis is back, and nobody was told",
                caller.note(Kind.NOTE, "… still waiting"),
            )
        heard = await answers(caller, band, word(), seconds)
        await asyncio.sleep(POLL)


async def answers(caller, band, text, seconds):
    """What the caller hears up to the answer to a call."""
    await caller.send(text)
    sent = f"{band}: {text}"
    heard = []
    while not {"(not sent)", sent} & set(heard):
        heard.append(await caller.receive(f'"(not sent)" or "{sent}"', seconds))
        if heard[-1] not in ("(not sent)", sent, "(link again)"):
            wanted = f'{caller.name} ← "(not sent)" or "{sent}"'
            raise Failure(
                Outcome.WRONG_MESSAGE, wanted, f"{caller.name} ← {json.dumps(heard[-1])}"
            )
    return heard


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="whoever connects while Redis is away is accepted and told so: do not wait for "
    "the subscription for ever. And when Redis is back, each time, everybody hears on",
    server_crashed="Redis is away when somebody connects or leaves: that raises a "
    "RedisError where you subscribe and where you unsubscribe",
    closed_early="whoever connects while Redis is away is welcome: let no error of the "
    "subscription end the handler",
    wrong_message="whoever connects while Redis is away hears (no link), and then as all "
    "others (link again); a band that everybody left meanwhile is not subscribed again",
    loop_blocked="wait for Redis with `await`, also when you try again",
)
async def test_rescuers_come_and_go_meanwhile(
    masts, outage, redis, servers, timeline, word
):
    """rescuers come and go while Redis is away, twice"""
    band, other = word(), word()
    ben, eva = await tune(masts, "ben 2", band), await tune(masts, "eva 2", other)
    await outage.begins(ben, eva)

    await eva.leave()
    newcomers = [await tune(masts, name, band) for name in ["ana 1", "cem 2"]]
    for newcomer in newcomers:
        await outage.tells(newcomer, "(no link)")
    everybody = [ben, *newcomers]
    await outage.ends(*everybody)
    await each_calls(everybody, band, word())
    await expect_subscriptions(redis, timeline, 2)

    await outage.begins(*everybody)
    await outage.ends(*everybody)
    await each_calls(everybody, band, word())
    for rescuer in everybody:
        await rescuer.leave()
    await expect_subscriptions(redis, timeline)
    for server in servers:
        if not await server.settled():
            wanted = "every handler ends when its rescuer has left"
            raise Failure(Outcome.SILENCE, wanted, "some still run")
