"""Proves that an exercise is worth its points, by answers whose verdict is known."""

import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from .checking import run_checks
from .course import Exercise, WrongAnswer
from .results import Result, Status


@dataclass(frozen=True)
class Job:
    """An answer to check, and what must come of it: `wrong` if it is a known wrong one."""

    exercise: Exercise
    answer: Path
    wrong: WrongAnswer | None = None


@dataclass(frozen=True)
class Verdict:
    """What is wrong with the verdict on an answer; nothing, one hopes."""

    stem: str
    answer: str
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = "as it should be" if not self.problems else "; ".join(self.problems)
        return f"{self.stem} {self.answer}: {what}"


def jobs(exercise: Exercise) -> list[Job]:
    """Everything there is to prove about an exercise."""
    return [
        Job(exercise, exercise.stub),
        Job(exercise, exercise.solution),
        *(Job(exercise, wrong.file, wrong) for wrong in exercise.wrong_answers),
    ]


def verifiers(number: int) -> ProcessPoolExecutor:
    """Processes for `verify_one`: what checks need, each of them imports once for all."""
    # Ctrl-C is for whoever asked them; it ends them when they have come to an end.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(number, get_context("spawn"), signal.signal, ignore)


def verify_one(job: Job, *, quickly: bool = False) -> Verdict:
    """Check one answer, and compare.

    Of a wrong answer, nothing counts but the first check that it fails; `quickly` runs that
    check alone, and does not find out whether one before it fails, too.
    """
    if not job.answer.exists():
        # A class has no solutions.
        problem = f"this copy of the workbook has no {job.answer.name}"
        return Verdict(job.exercise.stem, job.answer.name, (problem,))
    only = job.wrong.said("fails") if job.wrong and quickly else ""
    with submitted(job.answer.read_bytes()) as answer:
        results = run_checks(
            job.exercise, answer=answer, only=only, until_failure=bool(job.wrong)
        )
    faults = [result for result in results if result.status is Status.FAULT]
    if faults:
        problems = [f"the grader failed: {fault.text()}" for fault in faults]
    elif job.answer == job.exercise.stub:
        problems = stub_problems(results)
    elif job.wrong:
        problems = wrong_problems(job.wrong, results)
    else:
        problems = solution_problems(results)
    return Verdict(job.exercise.stem, job.answer.name, tuple(problems))


@contextmanager
def submitted(text: bytes) -> Iterator[Path]:
    """Put an answer into a fresh folder, under the name that a student's file has.

    `.stub.py` could not be imported.
    """
    with tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True) as folder:
        answer = Path(folder) / "exercise.py"
        answer.write_bytes(text)
        yield answer


def stub_problems(results: list[Result]) -> list[str]:
    """A stub that passes anything gives points away."""
    return [
        f"the stub passes {result.name}"
        for result in results
        if result.status not in (Status.FAILED, Status.SKIPPED)
    ]


def solution_problems(results: list[Result]) -> list[str]:
    """A solution that fails shows an unfair check."""
    return [
        f"the solution fails {r.name}: {r.got}"
        for r in results
        if r.status != Status.PASSED
    ]


def wrong_problems(wrong: WrongAnswer, results: list[Result]) -> list[str]:
    """A wrong answer must fail where it says, in the way it says, with that advice."""
    name, outcome, advice = map(wrong.said, ("fails", "outcome", "advice"))
    if not (name and outcome and advice):
        return ["its docstring must say `fails:`, `outcome:` and `advice:`"]
    failed = [
        result for result in results if result.status not in (Status.PASSED, Status.SKIPPED)
    ]
    if not failed:
        return ["the wrong answer passes"]
    first = failed[0]
    problems = []
    if first.name != name:
        problems.append(f"it fails {first.name}, not {name}")
    if first.outcome != outcome:
        problems.append(f"its outcome is '{first.outcome}', not '{outcome}'")
    if advice not in first.likely:
        problems.append(f"its advice is {first.likely!r}")
    return problems
