"""The command line: `python -m exercises`, with the commands for students."""

import json
import random
import shutil
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
import watchfiles
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from . import teaching
from .checking import run_checks
from .course import Exercise, Progress, exercises
from .doctor import findings
from .results import Result, Status
from .terminal import Exit, console, find, find_all
from .verifying import jobs, verifiers, verify_one

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    help="The exercises of the workbook: check your answer, get a hint, start again.",
)
app.add_typer(teaching.app)  # Their commands are listed last, wherever this stands.

COLOURS = {
    Status.PASSED: "green",
    Status.FAILED: "red",
    Status.SKIPPED: "dim",
    Status.FAULT: "magenta",
}

Stem = Annotated[str | None, typer.Argument(help="The exercise, such as echo_server.")]
TaskNumber = Annotated[int | None, typer.Option("--task", "-t", help="One task alone.")]


@app.callback(invoke_without_command=True)
def dashboard(context: typer.Context) -> None:
    """Show how far you are, and what to do next."""
    if context.invoked_subcommand:
        return
    progress = Progress()
    table = Table("exercise", "what you build", "points", "", box=None)
    for exercise in exercises():
        earned, total = progress.of(exercise).earned, exercise.total
        filled = 10 * earned // total if total else 0
        bar = Text("█" * filled, "green") + Text("░" * (10 - filled), "dim")
        table.add_row(exercise.stem, exercise.title, f"{earned} of {total}", bar)
    console.print(table)
    left = [exercise for exercise in exercises() if not progress.done(exercise)]
    if not left:
        console.print("\nEvery exercise is done.")
        return
    readme = left[0].folder / "README.md"
    console.print(f"\nNext: read {shown_path(readme)}, edit exercise.py beside it, then")
    console.print(f"  python -m exercises check {left[0].stem}")


def shown_path(path: Path) -> str:
    """A path as short as it can be from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


@app.command()
def check(
    stem: Stem = None,
    task: TaskNumber = None,
    everything: Annotated[bool, typer.Option("--all", help="Every exercise.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Repeat the same names and texts.")
    ] = None,
    answer: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file other than exercise.py."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Results as JSON.")] = False,
) -> None:
    """Check your answer; without a name, the next exercise that is not done."""
    if everything and stem:
        raise typer.BadParameter("give a name or --all, not both")
    seed = random.SystemRandom().randrange(10**7) if seed is None else seed
    results: list[Result] = []
    for exercise in find_all(None) if everything else [find(stem)]:
        if task is not None and task not in exercise.points:
            numbers = ", ".join(map(str, exercise.points))
            raise typer.BadParameter(f"{exercise.stem} has the tasks {numbers}, not {task}")
        results += check_one(exercise, answer, task, seed, quiet=as_json)
    if as_json:
        print(json.dumps({"seed": seed, "results": [r.data() for r in results]}, indent=1))
    raise typer.Exit(exit_code(results))


def check_one(
    exercise: Exercise,
    answer: Path | None = None,
    task: int | None = None,
    seed: int | None = None,
    *,
    quiet: bool = False,
) -> list[Result]:
    """Check one exercise, show each result as it comes, and remember the points."""
    if not quiet:
        console.print(Text(f"{exercise.stem} · {exercise.title}", "bold"))
    results = run_checks(
        exercise,
        answer=answer.absolute() if answer else None,
        task=task,
        seed=seed,
        listener=(lambda result: None) if quiet else show,
    )
    if answer is None:
        remember(exercise, results)
    if not quiet:
        summarise(exercise, results)
    return results


def show(result: Result) -> None:
    """Print a result, with its first line in the colour of its status."""
    first, *rest = result.text().split("\n", 1)
    console.print(Text(first, COLOURS[result.status]), soft_wrap=True)
    for line in rest:
        console.print(Text(line), soft_wrap=True)


def remember(exercise: Exercise, results: list[Result]) -> None:
    """Keep the points of the tasks that were checked."""
    progress = Progress()
    standing = progress.of(exercise)
    unknown = {result.task for result in results if result.status is Status.FAULT}
    if unknown:
        # What was skipped may have been so for the fault.
        unknown |= {r.task for r in results if r.status is Status.SKIPPED}
    for number in {result.task for result in results} - unknown - {0}:
        earned = sum(result.earned for result in results if result.task == number)
        standing.points[str(number)] = earned
    progress.save()


def summarise(exercise: Exercise, results: list[Result]) -> None:
    earned = sum(result.earned for result in results)
    possible = sum(result.points for result in results)
    console.print(f"\n{earned} of {possible} points.", end=" ")
    if exit_code(results) == Exit.FAILED:
        console.print(f"A hint: python -m exercises hint {exercise.stem}")
    elif exit_code(results) == Exit.FAULT:
        console.print("Something is wrong with the grader; this costs you nothing.")
    else:
        console.print("Well done. What is next: python -m exercises")


def exit_code(results: list[Result]) -> Exit:
    statuses = {result.status for result in results}
    if Status.FAULT in statuses:
        return Exit.FAULT
    return Exit.FAILED if Status.FAILED in statuses else Exit.PASSED


@app.command()
def hint(stem: Stem = None, task: TaskNumber = None) -> None:
    """Give a hint for the first task that is not done, one more each time."""
    exercise = find(stem)
    progress = Progress()
    standing = progress.of(exercise)
    open_tasks = [
        each.number
        for each in exercise.tasks
        if standing.points.get(str(each.number), 0) < each.points
    ]
    usual = next(iter(open_tasks), exercise.tasks[-1].number)
    number = usual if task is None else task
    hints = exercise.hints.get(number)
    if not hints:
        numbers = ", ".join(map(str, exercise.hints))
        raise typer.BadParameter(f"{exercise.stem} has the tasks {numbers}, not {number}")
    taken = min(standing.hints.get(str(number), 0) + 1, len(hints))
    standing.hints[str(number)] = taken
    progress.save()
    console.print(f"{exercise.stem}, task {number}, hint {taken} of {len(hints)}:")
    for each in hints[:taken]:
        console.print(f"- {each}")
    if taken == len(hints):
        console.print("That was the last one. Its lesson's example may help once more.")


@app.command()
def reset(stem: Annotated[str, typer.Argument(help="The exercise.")]) -> None:
    """Start an exercise again; your answer is kept beside it."""
    exercise = find(stem)
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S-%f")
    backup = exercise.folder / f"exercise-{stamp}.backup.py"
    if exercise.answer.exists():
        exercise.answer.rename(backup)
        console.print(f"Your answer is now {shown_path(backup)}.")
    shutil.copyfile(exercise.stub, exercise.answer)
    progress = Progress()
    progress.standings.pop(exercise.stem, None)
    progress.save()
    console.print(f"{shown_path(exercise.answer)} is as it was at the beginning.")


def is_answer(_: watchfiles.Change, path: str) -> bool:
    return Path(path).name == "exercise.py"


@app.command()
def watch(stem: Stem = None) -> None:
    """Check again each time you save; Ctrl-C ends it."""
    exercise = find(stem)
    while True:
        console.clear()
        check_one(exercise)
        if stem is None and Progress().done(exercise) and find(None) != exercise:
            exercise = find(None)
            console.print(f"\nNext: {shown_path(exercise.folder / 'README.md')}")
        console.print("\nWaiting for you to save exercise.py. Ctrl-C ends this.")
        try:
            # Editors save through a temporary file, so the folder is watched, not the file.
            next(watchfiles.watch(exercise.folder, watch_filter=is_answer, step=20))
        except (KeyboardInterrupt, StopIteration):
            raise typer.Exit(Exit.PASSED) from None


@app.command()
def solution(
    stem: Stem = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Before you have passed.")
    ] = False,
) -> None:
    """Show a possible solution, once you have passed."""
    exercise = find(stem)
    if not exercise.solution.exists():
        console.print(f"This copy of the workbook has no solution of {exercise.stem}.")
        raise typer.Exit(Exit.USAGE)
    if not (anyway or Progress().done(exercise)):
        console.print(f"First pass all tasks: python -m exercises check {exercise.stem}")
        console.print("Or have a look all the same, with --anyway.")
        raise typer.Exit(Exit.USAGE)
    code = exercise.solution.read_text(encoding="utf-8")
    console.print(Text(code), soft_wrap=True)


@app.command()
def doctor() -> None:
    """Look whether this machine can run the workbook."""
    well = True
    for finding in findings():
        console.print(Text("✓ " if finding.well else "✗ ") + Text(finding.what))
        if not finding.well:
            console.print(f"  what to do: {finding.remedy}")
        well &= finding.well
    raise typer.Exit(Exit.PASSED if well else Exit.FAILED)


@app.command()
def verify(
    stem: Stem = None,
    repeat: Annotated[int, typer.Option(min=1, help="How many times.")] = 1,
    workers: Annotated[int, typer.Option("-j", min=1, help="How many at once.")] = 4,
) -> None:
    """Prove the exercises: stubs fail, solutions pass, wrong answers fail as they say."""
    todo = [job for exercise in find_all(stem) for job in jobs(exercise)] * repeat
    aside = Console(stderr=True)
    verdicts = []
    with verifiers(workers) as pool:
        bar = track(
            pool.map(verify_one, todo),
            description="verifying",
            total=len(todo),
            console=aside,
            disable=not aside.is_terminal,
        )
        for verdict in bar:
            verdicts.append(verdict)
            if not aside.is_terminal:
                typer.echo(f"{len(verdicts)} of {len(todo)}: {verdict}", err=True)
    # What is wrong comes last, where a long output is looked at first.
    for verdict in sorted(set(verdicts), key=lambda each: (bool(each.problems), str(each))):
        times = f" ({verdicts.count(verdict)} of {repeat} times)" if repeat > 1 else ""
        console.print(Text(f"{verdict}{times}", "red" if verdict.problems else "green"))
    if not todo or any(verdict.problems for verdict in verdicts):
        raise typer.Exit(Exit.FAILED)


def main() -> None:
    """Run the command line."""
    app(prog_name="python -m exercises")
