"""Runs the checks of an exercise with a pytest of its own."""

import gc
from collections.abc import Callable
from pathlib import Path

import anyio.pytest_plugin
import pytest

from . import plugin
from .course import EXERCISES, Exercise
from .outcomes import LIKELY, Outcome
from .results import Result, Status

Listener = Callable[[Result], None]


class _Ear:
    """Hears what the plugin tells, and notices when pytest itself breaks."""

    def __init__(self, stem: str, listener: Listener) -> None:
        self.stem, self.listener = stem, listener
        self.results: list[Result] = []
        self.interrupted = False

    def pytest_configure(self, config: pytest.Config) -> None:
        # Made of each failure, and shown of faults alone; pytest's own style reads the
        # source of each function in between.
        config.option.tbstyle = "native"

    def pytest_check_result(self, result: Result) -> None:
        self.results.append(result)
        self.listener(result)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.fault("the checks could not be read", report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.fault("pytest broke", str(excrepr))

    def pytest_keyboard_interrupt(
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> None:
        # pytest has a kind of its own for checks that could not be read.
        self.interrupted = type(excinfo.value) is KeyboardInterrupt
        if isinstance(excinfo.value, pytest.exit.Exception):
            self.fault("something ended pytest", excinfo.exconly())

    def fault(self, got: str, log: str) -> None:
        """Report a fault of the grader."""
        outcome = Outcome.GRADER_FAULT
        self.pytest_check_result(
            Result(
                stem=self.stem,
                task=0,
                name="",
                sentence="the checks run",
                points=0,
                status=Status.FAULT,
                outcome=outcome,
                got=got,
                log=log,
                likely=LIKELY[outcome],
            )
        )


def run_checks(
    exercise: Exercise,
    *,
    answer: Path | None = None,
    task: int | None = None,
    only: str = "",
    seed: int | None = None,
    until_failure: bool = False,
    listener: Listener = lambda result: None,
) -> list[Result]:
    """Check an answer, `exercise.py` if no other is given; `listener` hears each result.

    `only` is the name of one check, if the others are not to be run.

    The configuration, the checks and the plugins come from the course alone, whatever lies
    in the current folder or beside the answer.
    """
    options = {"--answer": answer, "--task": task, "--seed": seed}
    ear = _Ear(exercise.stem, listener)
    arguments = [
        f"-c{EXERCISES / 'grader' / '.pytest.toml'}",
        f"--rootdir={EXERCISES}",
        f"--confcutdir={EXERCISES}",
        "--noconftest",
        "--disable-plugin-autoload",
        "-pno:terminal",
        # A check raises a `Failure`; where it does not, Python's own words will do.
        "--assert=plain",
        *(f"{option}={value}" for option, value in options.items() if value is not None),
        *(["--exitfirst"] if until_failure else []),
        f"{exercise.checks}::{only}" if only else str(exercise.checks),
    ]
    # pytest collects garbage when it ends. What was here before is not looked at again.
    gc.freeze()
    try:
        # Modules, not their names: those would be looked up in all packages there are.
        pytest.main(arguments, plugins=[ear, anyio.pytest_plugin, plugin])
    finally:
        gc.unfreeze()
    if ear.interrupted:
        # For pytest that was an end like others, but the results are not all there.
        raise KeyboardInterrupt
    if not ear.results:
        ear.fault("no check was run", f"{only or f'task {task}'} of {exercise.checks}")
    return ear.results
