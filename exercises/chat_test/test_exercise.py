"""The checks of the test: servers that are right, and servers that are not."""

import ast
import asyncio
import json
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.serving import ServerFailed, ServerProcess
from exercises.grader.timeline import Event, Kind, shown

SERVERS = Path(__file__).parent / "servers"
PATH = "/ws/harbour"
LIMIT = 8.0  # seconds for the whole of `check`
MARK = "@conversation "  # how a line begins that recorder.py prints

# Advice.
TOO_STRICT = (
    "the test complains of something that the README leaves open, or does not wait long "
    "enough"
)
ENDLESS = (
    "wait for nothing without a time limit: `async with asyncio.timeout(2)`; the end of "
    "`async with connect(…)` waits, too"
)
ENDED = "raise an exception where a server is wrong, and return where it is right"


def description(server):
    """What a server does, in the words of its first line."""
    text = ast.get_docstring(ast.parse(server.read_text(encoding="utf-8")))
    return text.removesuffix(".").replace("A server", "a server", 1)


def conversation(log, began):
    """What the clients of a server said and heard, as its log tells."""
    for line in log.splitlines():
        if line.startswith(MARK):
            try:
                at, who, what, text, size, code = json.loads(line.removeprefix(MARK))
            except ValueError:
                continue  # A line in which a long log was cut.
            kind, text = {
                "websocket.connect": (Kind.JOINED, f"joined {PATH}"),
                "websocket.receive": (Kind.SENT, f"{size} bytes" if size else shown(text)),
                "websocket.send": (Kind.RECEIVED, shown(text)),
                "websocket.close": (Kind.CLOSED, f"closed {code} {text}".rstrip()),
                "websocket.disconnect": (Kind.NOTE, f"has gone ({code})"),
            }.get(what, (None, ""))
            if kind:
                yield Event(at - began, who, kind, text)


async def ready(server):
    """Wait until a server of ours accepts; if it does not, that is no student's fault."""
    try:
        await asyncio.to_thread(server.wait_ready)
    except ServerFailed as failed:
        raise RuntimeError(str(failed)) from None


class Trial:
    """A server, and the student's test against it."""

    def __init__(self, server, *, right):
        self.server, self.right = server, right
        self.words = description(server)
        self.failure = None
        self.events = []

    async def run(self, start, began):
        """Find out whether the test says of the server what it should."""
        with tempfile.TemporaryDirectory() as folder:
            # Neither the name of a file nor a port nor an answer tells which server it is.
            for file in SERVERS.glob("*.py"):
                shutil.copy(file, folder)
            shutil.copy(self.server, Path(folder) / "chat.py")
            process = ServerProcess(Path(folder) / "recorder.py")
            try:
                await ready(process)
                await self.talk(start("check", process.url + PATH))
                process.report()  # What was logged before the report has been read.
                self.events = list(conversation(process.log, began))
            finally:
                await asyncio.to_thread(process.end)

    async def talk(self, program):
        wanted = ""
        try:
            await program.starts()
            wanted = f", when it is given {self.words}"
            ending = await program.ends(LIMIT)
        except Failure as failure:
            failure.expected += wanted
            failure.here = None
            if failure.outcome in (Outcome.SILENCE, Outcome.LOOP_BLOCKED):
                failure.likely = ENDLESS
            self.failure = failure
            return
        finally:
            await asyncio.to_thread(program.end)
        if self.right and ending.error:
            self.failure = Failure(
                Outcome.UNEXPECTED_MESSAGE,
                f"check accepts {self.words}: that is right",
                str(ending),
                line=str(ending.place or ""),
                likely=TOO_STRICT,
            )
        elif not self.right and not ending.error:
            self.failure = Failure(
                Outcome.UNEXPECTED_MESSAGE,
                f"check raises, for it was given {self.words}",
                f"it returned: {self.words} was accepted",
            )


@pytest.fixture
def tells(start, timeline, word):
    """Expect that the test accepts the right servers, and none of these broken ones."""

    async def expect(right, broken):
        trials = [Trial(SERVERS / "right" / f"{name}.py", right=True) for name in right]
        trials += [Trial(SERVERS / "broken" / f"{name}.py", right=False) for name in broken]
        order = random.Random(word()).sample(trials, len(trials))
        async with asyncio.TaskGroup() as group:
            for trial in order:
                group.create_task(trial.run(start, timeline.started))
        for trial in trials:
            if trial.failure:
                timeline.events += trial.events
                raise trial.failure

    return expect


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    unexpected_message="let ships say several texts, one right after the other, and "
    "compare each one that comes, word by word",
    program_crashed=ENDED,
)
async def test_texts(tells):
    """it finds servers that get the texts wrong"""
    await tells(
        right=["drops_texts", "takes_its_time"],
        broken=["passes_texts_on_bare", "loses_every_third_text", "turns_texts_round"],
    )


@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    unexpected_message="let three ships or more listen, and the one that speaks is one of "
    "them",
    program_crashed=ENDED,
)
async def test_who_hears(tells):
    """it finds servers that do not reach everybody"""
    await tells(
        right=["drops_ships", "drops_texts"],
        broken=["leaves_out_the_sender", "answers_the_sender_alone", "reaches_two_ships"],
    )


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    unexpected_message="after a ship has left, each of the others hears it once: what must "
    "come next if you let somebody talk then?",
    program_crashed=ENDED,
)
async def test_leaving(tells):
    """it finds servers that do not tell who left, or tell it twice"""
    await tells(
        right=["takes_its_time", "drops_ships"],
        broken=["keeps_leaving_secret", "tells_of_leaving_twice"],
    )


@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    unexpected_message="look at the close code of the ship that sent binary, and let the "
    "others talk afterwards",
    program_crashed=ENDED,
)
async def test_binary_messages(tells):
    """it finds servers that treat binary messages badly"""
    await tells(
        right=["drops_texts", "drops_ships"],
        broken=["falls_over_binary", "ignores_binary", "ends_everybody_over_binary"],
    )


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    unexpected_message="cut the line of a ship without a close frame; the others hear that "
    "it left, and then they talk on",
    program_crashed=ENDED,
)
async def test_cut_lines(tells):
    """it finds servers that do not get over a cut line"""
    await tells(
        right=["takes_its_time", "drops_texts"],
        broken=["misses_cut_lines", "trips_over_ghosts"],
    )


@pytest.mark.task(3, points=3)
@pytest.mark.likely(
    unexpected_message="let one ship never receive, and send long texts until the systems "
    "keep no more for it: without compression, and 200 of 64 KiB",
    program_crashed=ENDED,
)
async def test_the_ship_that_stops_reading(tells):
    """it finds servers in which one that does not read harms others"""
    await tells(
        right=["drops_ships", "drops_texts"],
        broken=["waits_for_each_in_turn", "waits_for_all_together", "blames_the_speaker"],
    )
