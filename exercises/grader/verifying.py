"""Proves that an exercise is worth its points, by answers whose verdict is known."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .course import ROOT, Exercise, WrongAnswer
from .results import Result, Status

RUN_DEADLINE = 120.0  # seconds for all checks of one answer
JUDGED = (0, 1, 3)  # exit codes of `check` with results: passed, failed, a fault among them


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


def verify_one(job: Job) -> Verdict:
    """Check one answer, in a process of its own, and compare."""
    if not job.answer.exists():
        # A class has no solutions.
        problem = f"this copy of the workbook has no {job.answer.name}"
        return Verdict(job.exercise.stem, job.answer.name, (problem,))
    try:
        # Of a wrong answer, nothing counts but the first check that it fails.
        results = check_apart(
            job.exercise, job.answer.read_bytes(), until_failure=job.wrong is not None
        )
    except (subprocess.SubprocessError, ValueError) as error:
        problems = [f"the grader failed: {error}"]
    else:
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


def check_apart(
    exercise: Exercise,
    text: bytes,
    *,
    seed: int | None = None,
    until_failure: bool = False,
    deadline: float = RUN_DEADLINE,
) -> list[Result]:
    """Run `check --json` on an answer, alone in a fresh folder; return the results.

    There it has the name that a student's file has: `.stub.py` could not be imported.
    """
    with tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True) as folder:
        answer = Path(folder) / "exercise.py"
        answer.write_bytes(text)
        run = subprocess.run(
            [sys.executable, "-m", "exercises", "check", exercise.stem, "--json"]
            + ["--answer", str(answer)]
            + (["--until-failure"] if until_failure else [])
            + ([] if seed is None else ["--seed", str(seed)]),
            cwd=ROOT,
            capture_output=True,
            timeout=deadline,
            check=False,
        )
    if run.returncode not in JUDGED or not run.stdout:
        raise ValueError((run.stdout + run.stderr).decode(errors="replace")[-2000:])
    return [result_from(result) for result in json.loads(run.stdout)["results"]]


def result_from(data: dict[str, Any]) -> Result:
    """Make a result of what JSON kept."""
    return Result(**data | {"status": Status(data["status"])})


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
        problems.append(f"its outcome is {first.outcome!r}, not {outcome!r}")
    if advice not in first.likely:
        problems.append(f"its advice is {first.likely!r}")
    return problems
