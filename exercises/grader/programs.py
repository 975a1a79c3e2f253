"""Runs a student's function that is a client, or a test, in a process of its own.

    with Program(file, "follow", url, gives=["show", "sleep"]) as program:
        await program.starts()
        wait = await program.sleeps()
        program.wake()
        ending = await program.ends()

The function is called with the URL and the tools that it is given, and its file is never
imported here. The tools tell what it does with them: `show(value)`, `await sleep(seconds)`,
which lasts until `wake`, and `draw()`, a random number from 0 to 1. All that the process
says of itself could be forged, so a check believes it only what harms nobody else.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .outcomes import NOT_STARTED, Failure, Outcome
from .serving import POLL, Child, Place, ServerFailed, patience, until
from .timeline import Event, Kind, Timeline, shown

DEADLINE = 5.0  # seconds to wait for what should come at once
CALLS_LIMIT = 10_000  # uses of its tools, after which a program is ended
SHOWN_LIMIT = 8 * 1024 * 1024  # characters that it may show


@dataclass(frozen=True)
class Wait:
    """A sleep that a program asked for, and what it drew since the one before."""

    seconds: float
    drawn: tuple[float, ...] = ()


@dataclass(frozen=True)
class Ending:
    """How a function ended: `error` is empty if it returned."""

    error: str = ""
    place: Place | None = None

    def __str__(self) -> str:
        return f"it raised {self.error}" if self.error else "it returned"


class Program(Child):
    """A function of a student's file, running in a process and a folder of its own.

    It is called with `url` and then with the tools named in `gives`. With a `timeline`,
    what it does with them is recorded there under its name.
    """

    def __init__(
        self,
        file: Path,
        function: str,
        url: str,
        *,
        gives: Sequence[str] = (),
        seed: str = "",
        timeline: Timeline | None = None,
        name: str = "client",
        limited: bool = False,
    ) -> None:
        self.function = function
        self.name = name
        self.timeline = timeline if timeline is not None else Timeline()
        self.shown: list[Any] = []
        self.waits: list[Wait] = []
        self.taken = 0  # of the waits, those that a check has seen
        self.ending: Ending | None = None
        self._drawn: list[float] = []
        self._calls = self._size = 0
        super().__init__(file, ["run", function, url, seed, *gives], limited=limited)

    def _take_reply(self, message: dict[str, Any]) -> None:
        if "started" in message:
            self.ready = True
            self._announced.set()
        elif "drawn" in message:
            self._drawn.append(float(message["drawn"]))
            self._count()
        elif "sleeps" in message:
            self._count()
            wait = Wait(float(message["sleeps"]), tuple(self._drawn))
            self._drawn.clear()
            self.note(f"sleeps {wait.seconds:.3f} s")
            self.waits.append(wait)
        elif "shown" in message:
            value = message["shown"]
            text = value if isinstance(value, str) else json.dumps(value)
            self._count(len(text))
            self.note(f"shows {shown(text)}")
            self.shown.append(value)
        elif said := message.get("ended"):
            place = Place(self.file, int(said["line"])) if said["line"] else None
            self.ending = Ending(str(said["error"]), place)
            self.note(f"{self.function} ended: {self.ending}")
        else:
            super()._take_reply(message)

    def _count(self, size: int = 0) -> None:
        self._calls += 1
        self._size += size
        if self._calls > CALLS_LIMIT or self._size > SHOWN_LIMIT:
            self.excess = f"its tools {self._calls} times, with {self._size} characters"
            # Nobody reads on, and so the program waits until it is ended.
            raise OSError(self.excess)

    def note(self, text: str) -> Event:
        """Record something about this program."""
        return self.timeline.record(self.name, Kind.NOTE, text)

    @property
    def over(self) -> bool:
        """Whether the function has ended, or the process, in whatever way."""
        return self.ending is not None or bool(self.excess) or self._finished()

    def _finished(self) -> bool:
        # The process may be gone before all that it said is read.
        return not self._readers[1].is_alive() and self.exit_code is not None

    async def starts(self) -> None:
        """Return when the file is imported and the function is called."""
        try:
            await asyncio.to_thread(self.wait_ready)
        except ServerFailed as failed:
            first, *lines = str(failed).strip().splitlines()
            raise Failure(
                Outcome.PROGRAM_CRASHED,
                f"{self.file.name} can be imported, and has a function {self.function}",
                first,
                line=str(self.crashed_at or ""),
                log="\n".join(lines[-4:]),
                likely=NOT_STARTED,
            ) from None

    async def ends(self, within: float = DEADLINE) -> Ending:
        """Return how the function ended; it must do so in time."""
        wanted = f"{self.function} ends"
        try:
            async with patience(within):
                while not self.over:
                    await asyncio.sleep(POLL)
        except TimeoutError:
            got = f"it was still running after {within:g} s"
            raise self.silence(f"{wanted} within {within:g} s", got) from None
        if self.ending is None:
            raise self.crash(wanted)
        return self.ending

    async def sleeps(self, within: float = DEADLINE) -> Wait:
        """Return the next sleep that it asks for; it must do so in time."""
        wanted = f"{self.name} sleeps"
        if not await until(lambda: len(self.waits) > self.taken or self.over, within):
            raise self.silence(wanted, f"it did not, within {within:g} s")
        if len(self.waits) > self.taken:
            self.taken += 1
            return self.waits[self.taken - 1]
        raise self.early_end(wanted)

    def wake(self) -> None:
        """Let the time of its oldest sleep be over."""
        assert self._process.stdin
        self.note("… that time passes")
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(b"!")
            self._process.stdin.flush()

    def early_end(self, wanted: str) -> Failure:
        """The failure of a program that ended where it should have gone on."""
        if self.ending is None or self.ending.error:
            return self.crash(wanted)
        here = self.note("… has ended")
        return Failure(Outcome.CLOSED_EARLY, wanted, f"{self.function} returned", here)

    def crash(self, wanted: str) -> Failure:
        """The failure of a program that came to grief."""
        got, likely = f"its process ended with exit code {self.exit_code}", ""
        place = self.crashed_at
        if self.excess:
            got = f"it was ended: it used {self.excess}"
            likely = "something is done again and again, without an end"
        elif self.ending:
            got, place = str(self.ending), self.ending.place
        log = "" if self.ending else "\n".join(self.log.strip().splitlines()[-4:])
        return Failure(
            Outcome.PROGRAM_CRASHED,
            wanted,
            got,
            self.note("… has ended"),
            line=str(place or ""),
            log=log,
            likely=likely,
        )

    def silence(self, wanted: str, got: str) -> Failure:
        """The failure of a program that does not come on, with the line where it waits."""
        here = self.note("… still running")
        report = self.report()
        if self.blocked and not report.beating:
            line = f"{self.blocked[-1]}    stops the event loop here"
            return Failure(Outcome.LOOP_BLOCKED, wanted, got, here, line=line)
        line = "\n".join(f"{place}    waits here" for place in report.waiting)
        return Failure(Outcome.SILENCE, wanted, got, here, line=line)
