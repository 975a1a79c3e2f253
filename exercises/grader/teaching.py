"""The commands for teachers: `release`, `grade` and `export`."""

import os
import random
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from .course import Exercise
from .exporting import FOLDERS, Format
from .exporting import export as write
from .grading import (
    Grade,
    Gradebook,
    Job,
    Journal,
    Submission,
    grade_all,
    sort_out,
    submissions,
)
from .releasing import bundle
from .releasing import release as write_release
from .terminal import Exit, console, find, find_all

app: typer.Typer = typer.Typer()

Only = Annotated[
    list[str] | None, typer.Option(help="This exercise; may be given several times.")
]
Output = Path | None


@app.command()
def release(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", file_okay=False, help="An empty folder.")
    ] = None,
    gradescope: Annotated[
        Path | None, typer.Option(metavar="ZIP", dir_okay=False, help="An autograder.")
    ] = None,
    only: Only = None,
) -> None:
    """Write the course for a class, without solutions, or an autograder for Gradescope."""
    if folder is None and gradescope is None:
        raise typer.BadParameter("give a folder, or --gradescope ZIP")
    if only and gradescope is None:
        raise typer.BadParameter("--only is for the autograder of --gradescope")
    if folder:
        if folder.exists() and any(folder.iterdir()):
            raise typer.BadParameter(f"{folder} is not empty")
        files = write_release(folder)
        console.print(Text(f"{files} files for a class are in {folder}."))
    if gradescope:
        gradescope.parent.mkdir(parents=True, exist_ok=True)
        bundle(gradescope, [exercise.stem for exercise in chosen(only)] if only else [])
        console.print(Text(f"{gradescope} is an autograder to upload to Gradescope."))


@app.command()
def grade(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="A folder with one folder or zip for each student, named for the student.",
        ),
    ],
    workers: Annotated[
        int, typer.Option("-j", min=1, help="How many at once.")
    ] = os.cpu_count() or 1,
    only: Only = None,
    seed: Annotated[
        int | None, typer.Option(help="Repeat the same names and texts.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the journal ends.")
    ] = False,
    journal: Annotated[
        Output, typer.Option(dir_okay=False, help="Gets each grade as it comes.")
    ] = None,
    as_json: Annotated[Output, typer.Option("--json", dir_okay=False)] = None,
    csv: Annotated[Output, typer.Option(dir_okay=False)] = None,
    junit: Annotated[Output, typer.Option(dir_okay=False)] = None,
    html: Annotated[Output, typer.Option(dir_okay=False)] = None,
    gradescope: Annotated[Output, typer.Option(file_okay=False)] = None,
    classroom50: Annotated[Output, typer.Option(file_okay=False)] = None,
) -> None:
    """Grade a class; only the files `<exercise>/exercise.py` of a submission are used.

    Ends with 0 when everything was graded, whatever the points are, and with 3 if the
    grader failed anywhere: `--resume` then tries again what is missing.
    """
    outputs = {
        kind: to
        for kind, to in {
            Format.JSON: as_json,
            Format.CSV: csv,
            Format.JUNIT: junit,
            Format.HTML: html,
            Format.GRADESCOPE: gradescope,
            Format.CLASSROOM50: classroom50,
        }.items()
        if to
    }
    found = class_in(folder)
    # A folder that cannot be made shows now, not after an hour.
    for kind, to in outputs.items():
        (to if kind in FOLDERS else to.parent).mkdir(parents=True, exist_ok=True)
    notes = Journal(journal or next(iter(outputs.values()), Path()).parent / "grades.jsonl")
    seed = notes.seed() if resume and seed is None else seed
    seed = random.SystemRandom().randrange(10**7) if seed is None else seed
    exercises = chosen(only)
    book = Gradebook.begin(exercises, seed)
    jobs, book.grades = sort_out(found, exercises)
    kept = notes.kept(book) if resume else {}
    done = {j: kept[j.key] for j in jobs if j.key in kept}
    book.grades += done.values()
    todo = [job for job in jobs if job not in done]
    # Tried now, for the same reason.
    notes.file.parent.mkdir(parents=True, exist_ok=True)
    notes.file.open("a", encoding="utf-8").close()
    try:
        # Closed at once if it is left early: what still waits must not be started.
        with closing(grade_all(todo, seed, workers)) as grades:
            for each in announced(grades, todo):
                notes.add(each, book)
                book.grades.append(each)
    except KeyboardInterrupt:
        again = f"What was graded is in {notes.file}; `grade … --resume` goes on."
        console.print(Text(again))
        raise typer.Abort from None
    for kind, to in outputs.items():
        write(book, kind, to)
    if not outputs:
        console.print(table(book))
    if book.fault:
        console.print(f"The grader failed somewhere; `--resume --seed {seed}` tries again.")
        raise typer.Exit(Exit.FAULT)


def chosen(only: list[str] | None) -> list[Exercise]:
    """The exercises of these names, in the order of the lessons."""
    wanted = {find(stem) for stem in only or []}
    return [each for each in find_all(None) if not only or each in wanted]


def class_in(folder: Path) -> list[Submission]:
    """The submissions in a folder, if there are any and each name stands for one."""
    found, others = submissions(folder)
    names = [submission.student for submission in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise typer.BadParameter(f"twice in {folder}: {', '.join(twice)}")
    if not found:
        raise typer.BadParameter(f"{folder} holds no folder and no zip of a student")
    for file in others:
        print_aside(f"left out: {file.name} is neither a folder nor a zip")
    return found


def announced(grades: Iterable[Grade], jobs: list[Job]) -> Iterator[Grade]:
    """Show how far it is: a bar in a terminal, a line for each grade elsewhere."""
    aside = Console(stderr=True)
    if aside.is_terminal:
        with Progress(console=aside) as progress:
            yield from progress.track(grades, len(jobs), description="grading")
        return
    for number, each in enumerate(grades, start=1):
        points = "fault" if each.fault else f"{each.earned} of {each.total}"
        print_aside(f"{number} of {len(jobs)}: {each.student} {each.stem} {points}")
        yield each


def print_aside(line: str) -> None:
    typer.echo(line, err=True)


def table(book: Gradebook) -> Table:
    """The points of everybody, for a terminal."""
    shown = Table("student", *book.points, "total", box=None)
    for student, grades in book.students().items():
        cells = {g.stem: "fault" if g.fault else str(g.earned) for g in grades}
        fault = "fault" in cells.values()
        total = "fault" if fault else str(sum(g.earned for g in grades))
        shown.add_row(Text(student), *(cells.get(s, "") for s in book.points), total)
    shown.add_row(Text("of", "dim"), *map(str, book.points.values()), str(book.of))
    return shown


@app.command()
def export(
    kind: Annotated[Format, typer.Argument(metavar="FORMAT", help=", ".join(Format))],
    file: Annotated[
        Path,
        typer.Argument(metavar="FROM.json", exists=True, dir_okay=False),
    ],
    to: Annotated[Path, typer.Argument(metavar="TO", help="A file or a folder.")],
) -> None:
    """Write grades that `grade --json` kept in another format."""
    try:
        book = Gradebook.read(file.read_text(encoding="utf-8"))
    except (ValueError, TypeError, KeyError) as error:
        raise typer.BadParameter(f"{file} was not written by `grade --json`") from error
    write(book, kind, to)
