"""What the course consists of, read from its files, and how far a student has come.

Nothing is registered anywhere: a lesson is a row of the README's table, an exercise a
folder of that name, or one to which the row has a link. Its tasks are the headings of its
README, its points the marks of its checks, its hints the list items of `hints.md`.
"""

import ast
import contextlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

EXERCISES = Path(__file__).parent.parent
ROOT = EXERCISES.parent
PROGRESS = EXERCISES / ".progress.json"

ROW = re.compile(r"^\|\s*(\d\d)\s*\|\s*\[?`(\w+)`", re.MULTILINE)
LINK = re.compile(r"exercises/(\w+)/README\.md")
MARK = re.compile(r"^@pytest\.mark\.task\((\d+), points=(\d+)\)$", re.MULTILINE)
TASK = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Task:
    """One numbered task of an exercise."""

    number: int
    title: str
    points: int


@dataclass(frozen=True)
class Exercise:
    """One exercise, in its folder."""

    stem: str

    @property
    def folder(self) -> Path:
        """Where the student works."""
        return EXERCISES / self.stem

    @property
    def answer(self) -> Path:
        """The only file that a student edits."""
        return self.folder / "exercise.py"

    @property
    def stub(self) -> Path:
        """What that file was at the beginning."""
        return self.folder / ".stub.py"

    @property
    def checks(self) -> Path:
        """The graded checks."""
        return self.folder / "test_exercise.py"

    @property
    def instructor(self) -> Path:
        """The folder that a class does not get."""
        return EXERCISES / "instructor" / self.stem

    @property
    def solution(self) -> Path:
        """One possible solution."""
        return self.instructor / "solution.py"

    @property
    def wrong_answers(self) -> list["WrongAnswer"]:
        """The known wrong answers, by name."""
        return [WrongAnswer(file) for file in sorted(self.instructor.glob("wrong/*.py"))]

    @property
    def title(self) -> str:
        """The outcome that the README's first line promises."""
        readme = (self.folder / "README.md").read_text(encoding="utf-8")
        return readme.splitlines()[0].removeprefix("# ")

    @property
    def tasks(self) -> list[Task]:
        """The tasks in order, with the points that their checks add up to."""
        readme = (self.folder / "README.md").read_text(encoding="utf-8")
        points = self.points
        return [
            Task(int(number), title, points.get(int(number), 0))
            for number, title in TASK.findall(readme)
        ]

    @property
    def points(self) -> dict[int, int]:
        """The points of each task, read from the marks without running anything."""
        points: dict[int, int] = {}
        for number, given in MARK.findall(self.checks.read_text(encoding="utf-8")):
            points[int(number)] = points.get(int(number), 0) + int(given)
        return points

    @property
    def total(self) -> int:
        """The points of all tasks."""
        return sum(self.points.values())

    @property
    def hints(self) -> dict[int, list[str]]:
        """The hints of each task, from a nudge to a pointer."""
        text = (self.folder / "hints.md").read_text(encoding="utf-8")
        parts = re.split(r"^## (\d+)$", text, flags=re.MULTILINE)[1:]
        return {
            int(number): [
                " ".join(hint.split())
                for hint in re.split(r"^- ", part, flags=re.MULTILINE)[1:]
            ]
            for number, part in zip(parts[::2], parts[1::2], strict=True)
        }


@dataclass(frozen=True)
class WrongAnswer:
    """A known wrong answer; its docstring says what it fails, how, and with what advice."""

    file: Path

    def said(self, label: str) -> str:
        """What the docstring says after `label:`."""
        text = ast.get_docstring(ast.parse(self.file.read_text(encoding="utf-8"))) or ""
        found = re.search(rf"^{label}:[ \t]*(.+(?:\n +.+)*)", text, flags=re.MULTILINE)
        return " ".join(found[1].split()) if found else ""


def exercises() -> list[Exercise]:
    """All exercises, in the order of the README's table: of a lesson, its own first."""
    order: list[str] = []
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        if row := ROW.match(line):
            order += [row[2], *LINK.findall(line)]
    found = [file.parent.name for file in EXERCISES.glob("*/test_exercise.py")]
    found.sort(key=lambda stem: (order.index(stem) if stem in order else len(order), stem))
    return [Exercise(stem) for stem in found]


@dataclass
class Standing:
    """How far a student has come in one exercise: points of each task, hints taken."""

    points: dict[str, int] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = [*self.points.values(), *self.hints.values()]
        if not all(isinstance(number, int) for number in numbers):
            raise TypeError("points and hints are numbers")

    @property
    def earned(self) -> int:
        """The points of all tasks."""
        return sum(self.points.values())


class Progress:
    """How far a student has come, kept in one small file."""

    def __init__(self, file: Path = PROGRESS) -> None:
        self.file = file
        self.standings: dict[str, Standing] = {}
        # A file that was damaged costs the memory of the progress, never the work itself.
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            kept = json.loads(file.read_text(encoding="utf-8"))
            self.standings = {stem: Standing(**standing) for stem, standing in kept.items()}

    def of(self, exercise: Exercise) -> Standing:
        """The standing in one exercise, to be read or changed."""
        return self.standings.setdefault(exercise.stem, Standing())

    def done(self, exercise: Exercise) -> bool:
        """Whether all points were earned."""
        return self.of(exercise).earned >= exercise.total

    def save(self) -> None:
        """Write the file in one step, so that a crash leaves the old or the new one."""
        kept = {stem: asdict(standing) for stem, standing in self.standings.items()}
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        fresh.replace(self.file)
