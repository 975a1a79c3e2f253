"""The checks of the departure board: a server and a line that fail as real ones do."""

import math

import pytest

from exercises.grader.hosting import Host
from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.programs import DEADLINE
from exercises.grader.serving import until
from exercises.grader.timeline import Kind

PATH = "/ws/trains"
BOUNDS = [1, 2, 4, 8, 16, 30, 30]  # seconds
PASSING = [503, 404, 408, 425, 429, 500, 522]  # some of them
TOOLS = ["show", "sleep", "draw"]


class Board:
    """The student's board, and a server that treats it as a check wants."""

    def __init__(self, host, program):
        self.host, self.program = host, program

    async def first(self, wanted, *, found):
        """Wait for the next thing that the board does; `found` says whether it is right."""
        program, host = self.program, self.host

        def anything():
            return host.waiting or len(program.waits) > program.taken or program.over

        await until(anything, DEADLINE)
        if found():
            return
        if host.waiting:
            here = host.waiting[0].note(Kind.NOTE, f"comes to {host.waiting[0].target}")
            got = f"it comes to {host.waiting[0].target} instead"
        elif len(program.waits) > program.taken:
            got = f"it sleeps {program.waits[program.taken].seconds:.3f} s instead"
            here = program.note("… has gone to sleep")
        elif program.over:
            raise program.early_end(wanted)
        else:
            raise program.silence(wanted, f"nothing within {DEADLINE:g} s")
        raise Failure(Outcome.UNEXPECTED_MESSAGE, wanted, got, here)

    async def comes(self, **query):
        """The board comes, with this query; returns its visit, still undecided."""
        wanted = "the board comes to the server"
        await self.first(wanted, found=lambda: self.host.waiting)
        visit = self.host.waiting.popleft()
        query = {name: str(value) for name, value in query.items()}
        if (visit.path, visit.query) != (PATH, query):
            asked = "&".join(f"{name}={value}" for name, value in query.items())
            raise Failure(
                Outcome.WRONG_MESSAGE,
                f"the board comes to {PATH}{'?' if asked else ''}{asked}",
                f"it comes to {visit.target}",
                visit.note(Kind.NOTE, f"comes to {visit.target}"),
            )
        return visit

    async def joins(self, run, /, **query):
        """The board comes, is accepted, and hears a hello."""
        visit = await self.comes(**query)
        await visit.accept()
        await visit.send({"type": "hello", "run": run})
        return visit

    async def sleeps(self):
        """The board sleeps before it comes back; returns what it asked for."""

        def found():
            return len(self.program.waits) > self.program.taken and not self.host.waiting

        await self.first("the board sleeps before it comes back", found=found)
        return await self.program.sleeps()

    async def comes_back(self, **query):
        """The board sleeps, and then comes with this query."""
        await self.sleeps()
        self.program.wake()
        return await self.comes(**query)

    async def rejoins(self, run, /, **query):
        """The board sleeps, comes with this query, is accepted, and hears a hello."""
        await self.sleeps()
        self.program.wake()
        return await self.joins(run, **query)

    async def sleeps_part_of(self, bound):
        """The board sleeps as long as `draw()` of this bound, and wakes up."""
        wait = await self.sleeps()
        parts = [drawn * bound for drawn in wait.drawn]
        if not any(math.isclose(wait.seconds, part, abs_tol=1e-6) for part in parts):
            drawn = f" = {parts[-1]:.3f} s" if parts else ", and asks draw() for it"
            raise Failure(
                Outcome.WRONG_MESSAGE,
                f"the board sleeps draw() × {bound} s{drawn}",
                f"it sleeps {wait.seconds:.3f} s",
                self.program.timeline.events[-1],
            )
        self.program.wake()

    async def shows(self, *texts):
        """All that the board has shown by now, or soon shows, are these texts."""
        shown = self.program.shown

        def enough():
            return len(shown) >= len(texts) or self.program.over

        if await until(enough, DEADLINE) and shown == list(texts):
            return
        for number, text in enumerate(texts[: len(shown)]):
            if shown[number] != text:
                wanted, got = f"the board shows {text!r}", f"it shows {shown[number]!r}"
                raise Failure(Outcome.WRONG_MESSAGE, wanted, got, self.program.note("…"))
        if len(shown) > len(texts):
            extra = shown[len(texts)]
            wanted, got = "the board shows nothing more", f"it shows {extra!r}"
            here = self.program.note("… has shown more")
            raise Failure(Outcome.UNEXPECTED_MESSAGE, wanted, got, here)
        wanted = f"the board shows {texts[len(shown)]!r}"
        if self.program.over:
            raise self.program.early_end(wanted)
        raise self.program.silence(wanted, f"it did not, within {DEADLINE:g} s")

    async def returns(self):
        """`follow` returns, and the board neither sleeps nor comes back."""
        wanted = "follow returns, and the board does not come back"
        await self.first(wanted, found=lambda: self.program.over)
        if (await self.program.ends()).error:
            raise self.program.crash(wanted)


@pytest.fixture
def board(start, timeline):
    """A new board and its server: to be entered with `async with`."""

    class Beginning:
        def __init__(self, **options):
            self.host = Host(timeline, name="board", **options)

        async def __aenter__(self):
            await self.host.__aenter__()
            url = self.host.url + PATH
            program = start("follow", url, gives=TOOLS, timeline=timeline, name="board")
            await program.starts()
            return Board(self.host, program)

        async def __aexit__(self, *error):
            await self.host.__aexit__(*error)

    return Beginning


def train(number, text):
    return {"type": "train", "number": number, "text": text}


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="show the `text` of each train as it is, in the order in which they come",
    silence="show a train as soon as it comes, and return after close code 4001",
    unexpected_message="only trains are shown; after close code 4001, return",
    closed_early="go on listening, until the server ends the connection",
    program_crashed="the exception left `follow`; is it how `websockets` tells of an end?",
    loop_blocked="await what waits: nothing is received while this line runs",
)
async def test_trains_are_shown(board, word):
    """trains are shown as they come, until close code 4001"""
    texts = [word() for _ in range(3)]
    async with board() as station:
        visit = await station.joins(word())

        await visit.send(train(1, texts[0]))
        await station.shows(texts[0])
        await visit.send({"type": "weather", "text": word()})
        await visit.send(train(2, texts[1]))
        await visit.send(train(5, texts[2]))
        await station.shows(*texts)
        await visit.close(4001, "unknown station")

        await station.returns()
        await station.shows(*texts)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    unexpected_message="HTTP 401 and 403 will be the answer next time, too: return",
    program_crashed="a refused handshake raises InvalidStatus in `connect`: catch it there",
    silence="after a refused handshake there is nothing to wait for: return",
)
async def test_a_refusal_is_final(board):
    """a handshake refused with 401 or 403 is the end"""
    for status in [401, 403]:
        async with board() as station:
            visit = await station.comes()

            visit.refuse(status)

            await station.returns()


@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    wrong_message="say in the query where you were: the `run` of the last hello, and as "
    "`after` the number of the last train",
    unexpected_message="before each attempt but the first, `await sleep(…)` once, with the "
    "tool that `follow` is given",
    closed_early="only 4001, 401 and 403 are for good: after any other end, sleep and come "
    "back; `async for` ends without an exception after close code 1000",
    program_crashed="a lost line raises ConnectionClosed, too, without a close frame: its "
    "rcvd is None",
    silence="when a connection has ended, `await sleep(…)` with the tool that `follow` is "
    "given, and connect again",
)
async def test_it_comes_back_to_where_it_was(board, word):
    """after a lost line it comes back to where it was"""
    run, texts = word(), [word() for _ in range(4)]
    async with board() as station:
        visit = await station.joins(run)
        await visit.send(train(1, texts[0]))
        await visit.send(train(2, texts[1]))
        await station.shows(*texts[:2])

        visit.cut()
        visit = await station.rejoins(run, run=run, after=2)
        await visit.send(train(3, texts[2]))
        await visit.close(1012, "restart")
        visit = await station.rejoins(run, run=run, after=3)
        await visit.close(1000)
        visit = await station.rejoins(run, run=run, after=3)
        await visit.send(train(7, texts[3]))
        await visit.close(4000)
        visit = await station.comes_back(run=run, after=7)

        visit.refuse(403)
        await station.returns()
        await station.shows(*texts)


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    program_crashed="what `connect` raises has many classes: OSError if nobody listens, "
    "InvalidStatus for HTTP 503, InvalidMessage if the line is cut in the handshake",
    closed_early="a server that cannot be reached, or that refuses with any status but 401 "
    "and 403, is a pause",
    unexpected_message="before each attempt but the first, `await sleep(…)` once",
    wrong_message="as long as there was no hello, there is nothing to say in the query",
    silence="an attempt that failed is followed by `await sleep(…)` and another one",
)
async def test_it_waits_for_a_server_that_is_away(board, word):
    """it keeps trying while the server is away or refuses for a while"""
    run, text = word(), word()
    async with board(listening=False) as station:
        await station.sleeps()
        station.program.wake()
        await station.sleeps()
        await station.host.listen()
        station.program.wake()

        visit = await station.comes()
        for status in PASSING:
            visit.refuse(status)
            visit = await station.comes_back()
        visit.cut()
        visit = await station.rejoins(run)
        await visit.send(train(1, text))

        await station.shows(text)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    unexpected_message="a train whose number is not greater than the last one's was shown "
    "before: leave it out",
    wrong_message="leave out trains that were shown before, and only those: a train that "
    "comes again must not set the last number back",
    silence="leave out trains that were shown before, and only those: their number says "
    "which, and not their text",
    program_crashed="a train that comes again is no error",
)
async def test_a_repeated_train_is_shown_once(board, word):
    """a train that comes again is shown once"""
    run, texts = word(), [word() for _ in range(6)]
    texts[5] = texts[4]  # A train of its own, with the same text.
    async with board() as station:
        visit = await station.joins(run)
        for number in [1, 2, 2, 1, 3]:
            await visit.send(train(number, texts[number]))
        await station.shows(*texts[1:4])
        visit.cut()

        visit = await station.rejoins(run, run=run, after=3)
        for number in [1, 2, 3]:
            await visit.send(train(number, texts[number]))
        await visit.close(1001)
        visit = await station.rejoins(run, run=run, after=3)
        await visit.send(train(4, texts[4]))
        await visit.send(train(5, texts[5]))

        await station.shows(*texts[1:6])


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="another run counts from 1 again: forget the old number when the hello names "
    "another run",
    wrong_message="another run counts from 1 again: forget the old number when the hello "
    "names another run, and remember the new run from then on, even without a train",
    unexpected_message="a hello of the same run changes nothing",
    program_crashed="a hello with another run is no error",
)
async def test_another_run_counts_from_1_again(board, word):
    """the trains of another run are all new"""
    old, new, texts = word(), word(), [word() for _ in range(6)]
    async with board() as station:
        visit = await station.joins(old)
        for number in [1, 2, 3]:
            await visit.send(train(number, texts[number - 1]))
        await station.shows(*texts[:3])
        visit.cut()

        visit = await station.rejoins(new, run=old, after=3)
        visit.cut()  # Before the first train of the new run.
        visit = await station.rejoins(new, run=new, after=0)
        await visit.send(train(1, texts[3]))
        await visit.send(train(2, texts[4]))
        await station.shows(*texts[:5])
        visit.cut()

        visit = await station.rejoins(new, run=new, after=2)
        await visit.send(train(2, texts[4]))
        await visit.send(train(3, texts[5]))
        await station.shows(*texts)


@pytest.mark.task(4, points=2)
@pytest.mark.likely(
    wrong_message="the bound is 1, 2, 4, 8, 16 and then always 30 seconds, and `draw()` "
    "says which part of it is slept",
    unexpected_message="sleep once before each attempt",
    closed_early="there is no last attempt: the board never gives up",
    silence="every failed attempt is followed by one sleep",
)
async def test_the_waits_grow(board):
    """the waits grow up to 30 s, and are random parts of that"""
    async with board() as station:
        visit = await station.comes()
        for bound in BOUNDS:
            visit.refuse(503)
            await station.sleeps_part_of(bound)
            visit = await station.comes()


@pytest.mark.task(4, points=1)
@pytest.mark.likely(
    wrong_message="a hello, and nothing before it, makes the waits start again at 1 second",
    unexpected_message="sleep once before each attempt",
    silence="every end of a connection is followed by one sleep",
)
async def test_a_hello_starts_again(board, word):
    """after a hello the waits start again at 1 s, and not before"""
    run = word()
    async with board() as station:
        visit = await station.comes()
        for bound in [1, 2]:
            visit.refuse(503)
            await station.sleeps_part_of(bound)
            visit = await station.comes()
        await visit.accept()
        await visit.close(1013, "try again later")
        await station.sleeps_part_of(4)

        visit = await station.joins(run)
        visit.cut()
        await station.sleeps_part_of(1)
