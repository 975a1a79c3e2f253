"""What came of a check, as data and as the text that a student reads."""

import textwrap
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

WIDTH = 78  # columns


class Status(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    FAULT = "fault"


SIGNS = {Status.PASSED: "✓", Status.FAILED: "✗", Status.SKIPPED: "·", Status.FAULT: "!"}


@dataclass
class Result:
    """One check of one exercise.

    `name` is the check's function and `sentence` what it asks for; `earned` of `points`
    were given. The rest is there if it failed: the outcome, what was expected and what
    came, the timeline as text and as events, the student's own line and what it does there,
    the likely cause, and how to run the check again.
    """

    stem: str
    task: int
    name: str
    sentence: str
    points: int
    status: Status
    earned: int = 0
    seconds: float = 0.0
    outcome: str = ""
    expected: str = ""
    got: str = ""
    timeline: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    line: str = ""
    log: str = ""
    likely: str = ""
    again: str = ""

    def data(self) -> dict[str, Any]:
        """The result as JSON would have it."""
        return asdict(self)

    def __str__(self) -> str:
        return self.text()

    @property
    def head(self) -> str:
        """The first line: what was asked, and the points."""
        title = f"{SIGNS[self.status]} task {self.task} · {self.sentence}"
        title += f" ({self.got})" if self.status is Status.SKIPPED else ""
        unit = "point" if self.points == 1 else "points"
        points = f"{self.earned} of {self.points} {unit}"
        if len(title) + len(points) + 2 > WIDTH:
            return f"{title}\n{points:>{WIDTH}}"
        return f"{title}{points:>{WIDTH - len(title)}}"

    def parts(self) -> list[tuple[str, str]]:
        """What is to be said beyond the first line: pairs of label and text."""
        if self.status is Status.SKIPPED:
            return []
        said = {
            "outcome": self.outcome,
            "expected": self.expected,
            "got": self.got,
            "timeline": self.timeline,
            "your code": self.line,
            "log": self.log,
            "likely": self.likely,
            "again": self.again,
        }
        return [(label, text) for label, text in said.items() if text]

    def text(self) -> str:
        """The result as a student reads it."""
        lines = [self.head]
        for label, text in self.parts():
            # Code and what programs wrote have a layout of their own.
            wrapped = (
                text.splitlines()
                if label in ("timeline", "your code", "log", "again")
                else textwrap.wrap(text, WIDTH - 13, break_long_words=False)
            )
            for number, line in enumerate(wrapped):
                lines.append(f"  {label if number == 0 else '':<9}  {line}".rstrip())
        return "\n".join(lines)
