"""The checks of the test: servers that are right, and servers that are not."""

import ast
import asyncio
import json
import os
import random
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.programs import Program
from exercises.grader.serving import ServerFailed, ServerProcess
from exercises.grader.timeline import Event, Kind, shown

SERVERS = Path(__file__).parent / "servers"
LIMIT = 7.0  # seconds for the whole of `check`

# Advice.
TOO_STRICT = (
    "the test complains of something that the README leaves open, or does not wait long "
    "enough"
)
ENDLESS = (
    "wait for nothing without a time limit: `async with asyncio.timeout(1)`; the end of "
    "`async with connect(…)` waits, too"
)
ENDED = "raise an exception where a server is wrong, and return where it is right"


def conversation(record, began):
    """What the clients of a server said and heard, as recorder.py tells."""
    # It may be writing the last line.
    for line in record.rpartition("\n")[0].splitlines():
        at, who, what, text, size, code = json.loads(line)
        kind, text = {
            "websocket.connect": (Kind.JOINED, "joined /ws/harbour"),
            "websocket.receive": (Kind.SENT, f"{size} bytes" if size else shown(text)),
            "websocket.send": (Kind.RECEIVED, shown(text)),
            "websocket.close": (Kind.CLOSED, f"closed {code} {text}".rstrip()),
            "websocket.disconnect": (Kind.NOTE, f"has gone ({code})"),
        }.get(what, (None, ""))
        if kind:
            yield Event(at - began, who, kind, text)


class Trial:
    """The student's test against one of our servers."""

    def __init__(self, kind, name, path):
        self.right, self.file = kind == "right", SERVERS / kind / f"{name}.py"
        # No name, no port, and no path tells a test which server it is given.
        self.path = path
        self.running = None  # the task that runs it
        self.events = []

    @property
    def words(self):
        """What the server does, in the words of its first line."""
        text = ast.get_docstring(ast.parse(self.file.read_text(encoding="utf-8")))
        return text.removesuffix(".").replace("A server", "a server", 1)

    async def run(self, answer, server, starting):
        """Fail if the test does not say of the server what it should."""
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            async with starting:
                url = f"{server.url}/{self.path}/ws/harbour"
                program = Program(answer, "check", url, limited=True)
                stack.push_async_callback(asyncio.to_thread, program.end)
                await program.starts()
            try:
                self.judge(await self.ending(program))
            except Failure:
                record = (server.home / self.path).read_text(encoding="utf-8")
                self.events = list(conversation(record, began))
                raise

    async def ending(self, program):
        """How the test ended, which it must do in time."""
        try:
            return await program.ends(LIMIT)
        except Failure as failure:
            failure.expected += f", when it is given {self.words}"
            failure.here = None
            if failure.outcome in (Outcome.SILENCE, Outcome.LOOP_BLOCKED):
                failure.likely = ENDLESS
            raise

    def judge(self, ending):
        """It should have raised an exception if the server is broken, and only then."""
        if self.right and ending.error:
            raise Failure(
                Outcome.UNEXPECTED_MESSAGE,
                f"check accepts {self.words}: that is right",
                str(ending),
                line=str(ending.place or ""),
                likely=TOO_STRICT,
            )
        if not self.right and not ending.error:
            raise Failure(
                Outcome.UNEXPECTED_MESSAGE,
                f"check raises, for it was given {self.words}",
                f"it returned: {self.words} was accepted",
            )


def offers(check):
    """The servers that a check wants to be tried, the right ones first."""
    marker = check.get_closest_marker("offers")
    return [(kind, name) for kind in ["right", "broken"] for name in marker.kwargs[kind]]


async def ready(server):
    """Wait until our servers accept; if they do not, that is no student's fault."""
    try:
        await asyncio.to_thread(server.wait_ready)
    except ServerFailed as failed:
        raise RuntimeError(str(failed)) from None


@pytest.fixture(scope="module")
async def trials(request, answer):
    """A trial, which is running, of each server that some check offers.

    Most of each is waiting for what does not come, so they all wait at the same time. But
    who begins keeps a processor busy: if all did at once, nobody would hear in time.
    """
    checks = [item for item in request.session.items if item.path == request.path]
    wanted = sorted({offer for check in checks for offer in offers(check)})
    source = random.Random(request.config.option.seed)
    source.shuffle(wanted)
    trials = {offer: Trial(*offer, source.randbytes(4).hex()) for offer in wanted}
    files = {trial.path: str(trial.file) for trial in trials.values()}
    starting = asyncio.Semaphore(os.cpu_count() or 1)
    server = ServerProcess(
        SERVERS / "recorder.py", environment={"OFFERS": json.dumps(files)}
    )
    try:
        await ready(server)
        for trial in trials.values():
            trial.running = asyncio.create_task(trial.run(answer, server, starting))
        yield trials
    finally:
        # Of those that no check came to ask for, some still run.
        running = [trial.running for trial in trials.values() if trial.running]
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        server.end()


@pytest.fixture
def tells(request, trials, timeline):
    """Expect that the test accepts the right servers, and none of the broken ones."""

    async def expect():
        for trial in map(trials.get, offers(request.node)):
            try:
                # Whatever becomes of this check, others may ask for the same trial.
                await asyncio.shield(trial.running)
            except Failure:
                timeline.events += trial.events
                raise

    return expect


@pytest.mark.offers(
    right=["drops_texts", "takes_its_time"],
    broken=["passes_texts_on_bare", "loses_every_third_text", "turns_texts_round"],
)
@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    unexpected_message="let ships say several texts, one right after the other, and "
    "compare each one that comes, word by word",
    program_crashed=ENDED,
)
async def test_texts(tells):
    """it finds servers that get the texts wrong"""
    await tells()


@pytest.mark.offers(
    right=["drops_ships", "drops_texts"],
    broken=["leaves_out_the_sender", "answers_the_sender_alone", "reaches_two_ships"],
)
@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    unexpected_message="let three ships or more listen, and the one that speaks is one of "
    "them",
    program_crashed=ENDED,
)
async def test_who_hears(tells):
    """it finds servers that do not reach everybody"""
    await tells()


@pytest.mark.offers(
    right=["takes_its_time", "drops_ships"],
    broken=["keeps_leaving_secret", "tells_of_leaving_twice"],
)
@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    unexpected_message="after a ship has left, each of the others hears it once: what must "
    "come next if you let somebody talk then?",
    program_crashed=ENDED,
)
async def test_leaving(tells):
    """it finds servers that do not tell who left, or tell it twice"""
    await tells()


@pytest.mark.offers(
    right=["drops_texts", "drops_ships"],
    broken=["falls_over_binary", "ignores_binary", "ends_everybody_over_binary"],
)
@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    unexpected_message="look at the close code of the ship that sent binary, and let the "
    "others talk afterwards",
    program_crashed=ENDED,
)
async def test_binary_messages(tells):
    """it finds servers that treat binary messages badly"""
    await tells()


@pytest.mark.offers(
    right=["takes_its_time", "drops_texts"],
    broken=["misses_cut_lines", "trips_over_ghosts"],
)
@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    unexpected_message="cut the line of a ship without a close frame; the others hear that "
    "it left, and then they talk on",
    program_crashed=ENDED,
)
async def test_cut_lines(tells):
    """it finds servers that do not get over a cut line"""
    await tells()


@pytest.mark.offers(
    right=["drops_ships", "drops_texts"],
    broken=["waits_for_each_in_turn", "waits_for_all_together", "blames_the_speaker"],
)
@pytest.mark.task(3, points=3)
@pytest.mark.likely(
    unexpected_message="let one ship never receive, and send long texts until the systems "
    "keep no more for it: without compression, and 200 of 64 KiB",
    program_crashed=ENDED,
)
async def test_the_ship_that_stops_reading(tells):
    """it finds servers in which one that does not read harms others"""
    await tells()
