"""What all commands share: where they write, how they exit, how they find an exercise.

Exit codes: 0 passed, 1 a check failed, 2 wrong usage, 3 a fault of the grader.
"""

import os
import sys
from enum import IntEnum
from pathlib import Path

import typer
from rich.console import Console

from .course import Exercise, Progress, exercises


class Terminal(Console):
    """Goes on in silence when whoever was reading has gone, as with `| head`."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


console = Terminal(highlight=False)


class Exit(IntEnum):
    """The exit codes."""

    PASSED, FAILED, USAGE, FAULT = range(4)


def find(stem: str | None) -> Exercise:
    """The exercise of that name, or the next one that is not done."""
    known = exercises()
    if stem is None:
        progress = Progress()
        return next((e for e in known if not progress.done(e)), known[-1])
    # `check exercises/echo_server/` is what a shell completes.
    name = Path(stem).name
    for exercise in known:
        if exercise.stem == name:
            return exercise
    names = ", ".join(exercise.stem for exercise in known)
    raise typer.BadParameter(f"there is no exercise {stem!r}; there are {names}")


def find_all(stem: str | None) -> list[Exercise]:
    return exercises() if stem is None else [find(stem)]
