"""The ways in which a check can end, other than well."""

from enum import StrEnum

from .timeline import Event


class Outcome(StrEnum):
    """Why a check failed. The last one never costs a student points."""

    WRONG_MESSAGE = "wrong message"
    SILENCE = "silence"
    UNEXPECTED_MESSAGE = "unexpected message"
    CLOSED_EARLY = "closed early"
    SERVER_CRASHED = "server crashed"
    LOOP_BLOCKED = "event loop blocked"
    PROGRAM_CRASHED = "program crashed"
    GRADER_FAULT = "fault of the grader"


# What is likely to be behind an outcome, where the check itself does not know better.
LIKELY = {
    Outcome.WRONG_MESSAGE: "compare the two messages letter by letter",
    Outcome.SILENCE: "the handler waits for something else, or forgot to answer",
    Outcome.UNEXPECTED_MESSAGE: "the server says more than it was asked",
    Outcome.CLOSED_EARLY: "the handler returned: does it receive in a loop?",
    Outcome.SERVER_CRASHED: "an exception left the handler; its last lines stand above",
    Outcome.LOOP_BLOCKED: "this call stops the event loop, and with it every client; "
    "await something that waits without blocking",
    Outcome.PROGRAM_CRASHED: "the program ended before its function did; its last lines "
    "stand above",
    Outcome.GRADER_FAULT: "not your code; please report this output",
}

# What is likely whatever a check is about; its own advice comes after these.
NOT_ACCEPTED = (
    "nobody accepted: is there a route for exactly this path, and does its handler reach "
    "`await websocket.accept()`?"
)
NOT_ANSWERED = (
    "the handler waits before it has accepted: `await websocket.accept()` comes first"
)
NO_REASON = "the code is right; the reason, `close`'s second argument, is missing"
NOT_AWAITED = "an `await` is missing: the log says that a coroutine was never awaited"

# Where these fit, no check knows better.
NOT_STARTED = "the file does not start: the last lines above say why"
NOT_BEGUN = "this is still the stub: its last line ends it; write your answer in its place"


class Failure(AssertionError):
    """A conversation that went another way than it should.

    `here` is the event of the timeline at which it did. `line` is the student's line, and
    `likely` the advice, if they are known better here than elsewhere. A `clue` is advice
    that does not take the place of the check's own, but comes before it.
    """

    def __init__(
        self,
        outcome: Outcome,
        expected: str,
        got: str,
        here: Event | None = None,
        *,
        line: str = "",
        log: str = "",
        likely: str = "",
        clue: str = "",
    ) -> None:
        super().__init__(f"{outcome}\n  expected  {expected}\n  got       {got}")
        self.outcome = outcome
        self.expected = expected
        self.got = got
        self.here = here
        self.line = line
        self.log = log
        self.likely = likely
        self.clue = clue
