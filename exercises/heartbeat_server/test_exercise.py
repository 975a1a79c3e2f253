"""The checks of the watch: climbers who talk, fall silent, answer, and come down."""

import asyncio
import contextlib
import time

import pytest
from websockets.exceptions import ConnectionClosed

from exercises.grader.clients import DEADLINE
from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.timeline import Kind, shown

LONG, SHORT = 60, 0.3  # seconds of silence that are too many
PAUSE = 0.02  # seconds between two words of somebody who talks all the time
TRIES = 5  # a machine that is too busy may keep a climber from speaking in time

CHECK, CLEAR = "radio check", "loud and clear"
QUESTION = "Still there?"

pytestmark = pytest.mark.server(environment={"PATIENCE": str(LONG)})
impatient = pytest.mark.server(environment={"PATIENCE": str(SHORT)})


class Unlucky(Failure):
    """A climber was silent for too long, because the machine was too busy."""


class Climber:
    """A client on the wall, and since when it is silent, as the watch may see it."""

    def __init__(self, client, patience, since):
        self.client, self.patience, self.since = client, patience, since

    async def say(self, text):
        """Say something and expect the answer; a question may come before it, in time."""
        said = time.monotonic()
        answer = CLEAR if text == CHECK else f"Noted: {text}"
        try:
            await self.client.send(text)
            while (heard := await self.client.receive(f'"{answer}"')) == QUESTION:
                self.expect_lasted(self.patience / 2, Outcome.UNEXPECTED_MESSAGE)
        except Failure as failure:
            why = failure.outcome, failure.expected, failure.got, failure.here
            if self.client.code == 4008 and self.silent >= self.patience:
                raise Unlucky(*why) from None
            raise
        if heard != answer:
            name, here = self.client.name, self.client.timeline.events[-1]
            wanted = f"{name} ← {answer}"
            raise Failure(Outcome.WRONG_MESSAGE, wanted, f"{name} ← {heard}", here)
        self.since = said

    async def call_too_late(self, text):
        """Say something after the end, which nobody must answer."""
        self.client.note(Kind.SENT, shown(text))
        with contextlib.suppress(ConnectionClosed):
            await self.client.connection.send(text)

    @property
    def silent(self):
        """For how many seconds, at most."""
        return time.monotonic() - self.since

    def expect_lasted(self, least, outcome):
        """What has just come may come after so many seconds of silence."""
        # Clocks are coarse on some systems.
        if self.silent < 0.9 * least:
            wanted = f"{self.client.name} may be silent for {least:g} s before that"
            got, here = f"it was silent for {self.silent:.2f} s", self.client.timeline
            raise Failure(outcome, wanted, got, here.events[-1])

    async def expect_question(self):
        await self.client.expect(QUESTION)
        self.expect_lasted(self.patience / 2, Outcome.UNEXPECTED_MESSAGE)

    async def expect_end(self):
        await self.client.expect_close(4008, "no sign of life")
        self.expect_lasted(self.patience, Outcome.CLOSED_EARLY)

    async def expect_end_after_all(self):
        """The end must come, whatever comes before it."""
        try:
            async with asyncio.timeout(DEADLINE):
                while await self.client.hears():
                    pass
        except TimeoutError:
            raise Failure(
                Outcome.SILENCE,
                f"{self.client.name} is closed after {self.patience:g} s of silence",
                f"the connection is open after {self.silent:.1f} s",
                self.client.note(Kind.NOTE, "… still open"),
            ) from None
        await self.expect_end()


async def climb(conversation, name, patience=LONG, **options):
    since = time.monotonic()
    client = await conversation.join(name, f"/wall/{name}", **options)
    return Climber(client, patience, since)


async def climb_and_tell(conversation, name, *listeners, patience=LONG, **options):
    """A climber of whom base camp has heard."""
    climber = await climb(conversation, name, patience, **options)
    for base in listeners:
        await base.expect(f"{name} is on the wall")
    return climber


async def listen(conversation, which, *climbers):
    """Somebody at base camp, who has heard who is on the wall."""
    base = await conversation.join(which, "/base")
    await base.expect(f"On the wall: {', '.join(sorted(climbers)) or 'nobody'}")
    return base


async def talk(*climbers, words, seconds=1.6 * SHORT):
    """Everybody says the own word again and again, for longer than silence may last."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for climber, text in zip(climbers, words, strict=True):
            await climber.say(text)
        await asyncio.sleep(PAUSE)


async def patiently(attempt):
    """Do it again, with other climbers, if the machine was too busy.

    An attempt that returns False went well, but too slowly to prove anything.
    """
    for left in reversed(range(TRIES)):
        try:
            if await attempt() is not False:
                return
        except Unlucky:
            if not left:
                raise


def names(word, *first):
    """Names that nobody can know beforehand, and that sort as the first ones do."""
    return [f"{name}-{word()[:4]}" for name in first]


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="`radio check` is answered `loud and clear`, any other text `T` with "
    "`Noted: T`, an empty one as well",
    silence="each text is answered at once, also an empty one: wait for a message with a "
    "time limit, never for the time alone",
    closed_early="the handler receives and answers in a loop, and is in no hurry to close",
    unexpected_message="the question of task 2 comes after half of PATIENCE, in seconds",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_every_text_is_noted(conversation, word):
    """a radio check is answered, and every other text noted"""
    ana, ben = [await climb(conversation, name) for name in names(word, "ana", "ben")]

    for text in [word(), CHECK, "", f" {CHECK}", CHECK.upper(), word(), CHECK]:
        await ana.say(text)
    await ben.say(word())


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    server_crashed="a binary message has no text: look at the whole message that "
    "receive() gives. When a climber has gone, receiving and sending raise "
    "WebSocketDisconnect, and there is nobody to close",
    silence="a binary message is closed with 1003, and the handler of a climber who has "
    "left ends",
    unexpected_message="a binary message is not answered: close with 1003",
    wrong_message="the close code for data of the wrong kind is 1003 (unsupported data)",
    closed_early="a binary message is closed with 1003, and concerns nobody else",
)
async def test_a_binary_message_and_a_cut_line_harm_nobody(conversation, server, word):
    """binary is closed with 1003, and leaving leaves no error"""
    ana, ben, eva = [
        await climb(conversation, name) for name in names(word, "ana", "ben", "eva")
    ]
    await eva.say(word())

    await ana.client.send(word().encode())
    await ana.client.expect_close(1003, with_reason=True)
    ben.client.vanish()
    await eva.say(word())
    await eva.client.leave()

    await server.expect_quiet()


@impatient
@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    silence="wait for a message, but not for ever: put asyncio.timeout around it, and "
    "close when it is over; to have asked is no sign of life",
    server_crashed="a time limit that is over raises TimeoutError: catch it, and close",
    wrong_message="the code is 4008 and the reason `no sign of life`, so that a client can "
    "tell this end from a good one",
    closed_early="PATIENCE counts from the last message, or from the beginning if there "
    "was none; then close with 4008: returning is not enough",
    unexpected_message="who is silent hears nothing but the question of task 2",
)
async def test_who_says_nothing_is_given_up(conversation, server, word):
    """who says nothing for PATIENCE seconds is closed with 4008"""

    async def attempt():
        # The telephone itself is not silent; that is no word of its owner.
        ana = await climb(conversation, word(), SHORT, ping_interval=SHORT / 8)
        ben = await climb(conversation, word(), SHORT)
        began = ben.since
        await ben.say(word())
        # Whether that starts the time again is the next check's question.
        ben.since = began
        for climber in [ana, ben]:
            await climber.expect_end_after_all()

    await patiently(attempt)
    await server.expect_quiet()


@impatient
@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    closed_early="every text starts the time again, whichever it is: put the limit "
    "around the waiting for one message, not around the conversation",
    silence="a text came and was not answered: a task that waits for a message and is "
    "given up without being cancelled takes it away",
    unexpected_message="who talks is not asked: every text starts the time again",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_every_text_starts_the_time_again(conversation, word):
    """every text starts the time again"""

    async def attempt():
        climbers = [await climb(conversation, word(), SHORT) for _ in range(3)]
        await talk(*climbers, words=[word(), "", CHECK])

    await patiently(attempt)


@impatient
@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    closed_early="after half of PATIENCE the watch asks, and after all of it, counted from "
    "the last message, it closes",
    wrong_message="the question is `Still there?`, and the end is 4008 as before",
    unexpected_message="the watch asks once in a silence, after half of PATIENCE; the end "
    "comes after all of it, counted from the last message and not from the question",
    silence="after the question the other half of PATIENCE is left, and then comes the end",
    server_crashed="a time limit that is over raises TimeoutError, the second as the first",
)
async def test_a_silent_climber_is_asked_once(conversation, word):
    """after half of PATIENCE comes one question, then the end"""

    async def attempt():
        ana = await climb(conversation, word(), SHORT)
        ben = await climb(conversation, word(), SHORT)
        await ana.expect_question()
        await talk(ben, words=[word()], seconds=SHORT / 4)
        await ben.expect_question()
        # Now ana's time is over, and has been for a quarter of it.
        await ana.call_too_late(word())
        # Who counts from the question would close after 1.5 times PATIENCE.
        proved = ana.silent < 1.4 * SHORT
        await ana.expect_end()
        return proved

    await patiently(attempt)


@impatient
@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    closed_early="an answer starts the time again, also for the next question; it is lost "
    "if a task that waited for a message was given up and not cancelled",
    wrong_message="an answer is noted as any other text, and the next silence brings the "
    "next question",
    unexpected_message="an answer starts the time again: half of PATIENCE passes before "
    "the next question",
    silence="an answer is noted as any other text, and the next silence brings the "
    "next question",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_an_answer_starts_the_time_again(conversation, word):
    """an answer starts the time again, as often as it comes"""

    async def attempt():
        ana = await climb(conversation, word(), SHORT)
        ben = await climb(conversation, word(), SHORT)
        for climber, text in [(ana, word()), (ben, CHECK)]:
            await climber.expect_question()
            # By now the watch waits for the answer, in whatever way it does.
            await asyncio.sleep(PAUSE)
            await climber.say(text)
        await ana.expect_question()
        await asyncio.sleep(PAUSE)
        await ana.say("")
        await ben.expect_question()
        await ben.expect_end()
        await ana.expect_question()

    await patiently(attempt)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    wrong_message="first `On the wall: ` and the names, sorted, or `nobody`; then "
    "`… is on the wall` and `… came down`, each once, to all at base camp",
    silence="everybody at base camp hears every change, however the connection ended",
    closed_early="base camp may be silent and say what it likes: read it and ignore it",
    unexpected_message="what base camp says is ignored, and each change is told once",
    server_crashed="what base camp says may be binary, and who listens may be gone: "
    "receive() takes both kinds, and sending to one who has gone raises",
)
async def test_base_camp_knows_who_is_on_the_wall(conversation, word):
    """base camp hears who is there, who comes and who goes"""
    zoe, ana, ben, eva = names(word, "zoe", "ana", "ben", "eva")
    base = await listen(conversation, "base")
    up = [await climb_and_tell(conversation, name, base) for name in [zoe, ana, ben]]
    other = await listen(conversation, "other base", zoe, ana, ben)
    up.append(await climb_and_tell(conversation, eva, base, other))

    for message in [word(), word().encode(), CHECK]:
        await other.send(message)
    await up[1].client.leave()
    await base.expect(f"{ana} came down")
    await other.expect(f"{ana} came down")
    up[0].client.vanish()
    await base.expect(f"{zoe} came down")
    await other.expect(f"{zoe} came down")
    await up[2].client.send(word().encode())
    await base.expect(f"{ben} came down")
    await other.expect(f"{ben} came down")

    await up[3].say(word())
    await listen(conversation, "third base", eva)


@impatient
@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    wrong_message="who is given up `fell silent`, once, and did not `come down` as well; "
    "and is on the wall no more",
    silence="a climber who is given up is told at once: a lost telephone confirms no "
    "close, so wait for nothing more from it",
    closed_early="the patience is for climbers: base camp may be silent for ever",
    server_crashed="the exception is in your handler; its last line stands above",
    unexpected_message="who is given up `fell silent`, once",
)
async def test_base_camp_hears_who_fell_silent(conversation, word):
    """base camp hears who fell silent, lost telephone or not"""
    zoe, ben, eva = names(word, "zoe", "ben", "eva")
    base = await listen(conversation, "base")
    await climb(conversation, zoe, SHORT, reads=False)
    await climb(conversation, ben, SHORT)

    # On a busy machine one may be given up before the other has come.
    due = {
        f"{name} {what}"
        for name in [zoe, ben]
        for what in ["is on the wall", "fell silent"]
    }
    while due:
        heard = await base.receive(f'"{sorted(due)[0]}"')
        if heard not in due or heard.replace("fell silent", "is on the wall") in due - {
            heard
        }:
            got, here = f"base ← {heard}", base.timeline.events[-1]
            wanted = f"base ← {' or '.join(sorted(due))}"
            raise Failure(Outcome.WRONG_MESSAGE, wanted, got, here)
        due.remove(heard)

    await listen(conversation, "late base")
    await climb_and_tell(conversation, eva, base)


@impatient
@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    wrong_message="what watched over a climber has to end when that climber goes; later it "
    "tells lies, or ends the next one of that name",
    closed_early="what watched over a climber has to end when that climber goes: it has "
    "closed the next one of that name; and a listener who has left is no reason either",
    silence="something still runs, or was ended, for somebody who has left: what you "
    "start, you cancel in `finally`, and who listens must also read",
    server_crashed="listeners and climbers who have left are sent nothing and closed no "
    "more: take them out in `finally`, and look at the exceptions of your tasks",
    unexpected_message="who comes back has a time that starts afresh",
)
async def test_nothing_is_left_of_those_who_left(conversation, server, word):
    """who left leaves nothing, and who comes back starts afresh"""
    before = server.report()
    gone, cut = [await listen(conversation, name) for name in ["gone base", "cut base"]]
    await gone.leave()
    cut.vanish()

    async def attempt():
        ana, ben = names(word, "ana", "ben")
        base = await listen(conversation, "base")
        for name in [ana, ben]:
            first = await climb_and_tell(conversation, name, base, patience=SHORT)
            await first.say(word())
            await first.client.leave()
            await expect_came_down(base, first)
        again = await climb_and_tell(conversation, ana, base, patience=SHORT)
        # Whatever went on for the two who left has its moment meanwhile.
        await talk(again, words=[word()])
        await again.client.leave()
        await expect_came_down(base, again)
        await base.leave()

    await patiently(attempt)
    for client in conversation.clients:
        client.vanish()
    await server.expect_quiet(since=before)


async def expect_came_down(base, climber):
    """Base camp hears it, unless the machine was so busy that the climber fell silent."""
    try:
        await base.expect(f"{climber.client.name} came down")
    except Failure as failure:
        fell = failure.got == f'{base.name} ← "{climber.client.name} fell silent"'
        if fell and climber.silent >= SHORT:
            why = failure.outcome, failure.expected, failure.got, failure.here
            raise Unlucky(*why) from None
        raise
