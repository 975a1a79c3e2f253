"""From the submissions of a class to its grades.

A submission is a folder or a zip named for its student. All that is used of it are the
files `<stem>/exercise.py`, wherever they lie in it; each is checked in a process of its
own. Nothing that a student hands in ends the run: what cannot be read is a note in the
grades, and what the grader could not find out is a fault of the grader, never points.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Self

from .course import EXERCISES, ROOT, Exercise
from .outcomes import LIKELY, Outcome
from .results import Result, Status
from .verifying import submitted

ANSWER_LIMIT = 1024 * 1024  # bytes of one exercise.py
UNPACKED_LIMIT = 256 * 1024 * 1024  # bytes that a zip may hold
MEMBERS_LIMIT = 10_000  # files that a zip may hold
DEADLINE = 300.0  # seconds for all checks of one answer
JUDGED = (0, 1, 3)  # exit codes of `check` with results: passed, failed, a fault among them

IGNORED = {"__MACOSX", "venv", "node_modules"}  # and whatever begins with a dot
# Only these can be unpacked a little at a time, and so be bounded.
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
BROKEN = (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError, ValueError)

NOT_HANDED_IN = "not handed in"


class Refused(Exception):
    """A submission that is not read; the message says why."""


# Finding the answers


@dataclass(frozen=True)
class Submission:
    """What one student handed in."""

    student: str
    path: Path

    def answers(self, stems: Iterable[str]) -> dict[str, bytes]:
        """The text of each `exercise.py`, by the name of its folder."""
        read = from_folder if self.path.is_dir() else from_zip
        return read(self.path, list(stems))


def submissions(folder: Path) -> tuple[list[Submission], list[Path]]:
    """The submissions in a folder, and the files in it that are none."""
    found, others = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in IGNORED:
            continue
        if path.is_dir():
            found.append(Submission(readable(path.name), path))
        elif path.suffix.lower() == ".zip":
            found.append(Submission(readable(path.stem), path))
        else:
            others.append(path)
    return found, others


def readable(name: str) -> str:
    """A name without characters that could take over a terminal or break a file."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in name
    )


def choose(paths: Iterable[PurePosixPath], stem: str) -> PurePosixPath | None:
    """The answer among the paths: the one that lies least deep."""
    fitting = [path for path in paths if path.parts[-2:] == (stem, "exercise.py")]
    return min(fitting, key=lambda path: (len(path.parts), path), default=None)


def ignored(name: str) -> bool:
    return name in IGNORED or name.startswith(".")


def from_folder(folder: Path, stems: list[str]) -> dict[str, bytes]:
    """The answers in a folder."""
    paths = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not ignored(name)]
        inside = PurePosixPath(Path(here).relative_to(folder).as_posix())
        paths += [inside / name for name in files if name == "exercise.py"]
    found = {stem: path for stem in stems if (path := choose(paths, stem))}
    try:
        return {stem: contents(folder / path) for stem, path in found.items()}
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}") from error


def contents(file: Path) -> bytes:
    # A link could lead to the solution, a pipe nowhere.
    if not stat.S_ISREG(file.lstat().st_mode):
        raise Refused("exercise.py is no ordinary file")
    with file.open("rb") as opened:
        return bounded(opened.read(ANSWER_LIMIT + 1))


def bounded(text: bytes) -> bytes:
    if len(text) > ANSWER_LIMIT:
        raise Refused(f"exercise.py is larger than {ANSWER_LIMIT // 1024} KiB")
    return text


def from_zip(file: Path, stems: list[str]) -> dict[str, bytes]:
    """The answers in a zip, read without unpacking the rest."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member_path(m): m for m in bounded_members(archive)}
            paths = [path for path in members if not any(map(ignored, path.parts))]
            found = {stem: path for stem in stems if (path := choose(paths, stem))}
            return {stem: unpacked(archive, members[path]) for stem, path in found.items()}
    except BROKEN as error:
        raise Refused(f"the zip is broken: {error}") from error


def bounded_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > MEMBERS_LIMIT:
        raise Refused(f"the zip holds more than {MEMBERS_LIMIT} files")
    if sum(member.file_size for member in members) > UNPACKED_LIMIT:
        raise Refused(f"the zip holds more than {UNPACKED_LIMIT // 1024**2} MiB")
    return members


def member_path(member: zipfile.ZipInfo) -> PurePosixPath:
    # Some programs on Windows write backslashes.
    name = member.filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":":
        raise Refused("the zip holds a path that leads out of it")
    return path


def unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.compress_type not in METHODS:
        raise Refused("the zip is packed in an unusual way")
    # What the zip says of sizes may be a lie, so no more is read than is wanted.
    with archive.open(member) as opened:
        return bounded(opened.read(ANSWER_LIMIT + 1))


# Grading


@dataclass
class Grade:
    """What came of one exercise of one student.

    `answer` is a hash of what was checked, and empty if nothing was: then `note` says why.
    """

    student: str
    stem: str
    total: int
    earned: int = 0
    note: str = ""
    answer: str = ""
    seconds: float = 0.0
    results: list[Result] = field(default_factory=list)

    @classmethod
    def read(cls, data: dict[str, Any]) -> Self:
        """Make a grade of what JSON kept."""
        return cls(**data | {"results": [result_from(r) for r in data["results"]]})

    @property
    def fault(self) -> bool:
        """Whether the grader failed, so that the points are not known."""
        return any(result.status is Status.FAULT for result in self.results)

    @property
    def lost(self) -> list[Result]:
        """The checks that did not pass, without those that were never run."""
        return [r for r in self.results if r.status in (Status.FAILED, Status.FAULT)]


@dataclass
class Gradebook:
    """The grades of a class, and what they were found with.

    `points` are those of each exercise, in the order of the lessons.
    """

    version: str
    seed: int
    date: str
    points: dict[str, int]
    grades: list[Grade] = field(default_factory=list)

    @classmethod
    def begin(cls, exercises: Iterable[Exercise], seed: int) -> Self:
        """An empty gradebook of today."""
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(version(), seed, date, {each.stem: each.total for each in exercises})

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `write` wrote."""
        data = json.loads(text)
        return cls(**data | {"grades": [Grade.read(grade) for grade in data["grades"]]})

    def write(self) -> str:
        """Everything there is, as JSON."""
        return json.dumps(asdict(self), indent=1)

    @property
    def of(self) -> int:
        """The points that can be had."""
        return sum(self.points.values())

    @property
    def fault(self) -> bool:
        """Whether anything has to be graded again."""
        return any(grade.fault for grade in self.grades)

    def students(self) -> dict[str, list[Grade]]:
        """The grades of each student, by name, in the order of the lessons."""
        order = list(self.points)
        names = sorted({grade.student for grade in self.grades})
        found: dict[str, list[Grade]] = {name: [] for name in names}
        for grade in sorted(self.grades, key=lambda grade: order.index(grade.stem)):
            found[grade.student].append(grade)
        return found


@dataclass(frozen=True)
class Job:
    """One answer to check."""

    student: str
    exercise: Exercise
    text: bytes

    @property
    def answer(self) -> str:
        """A hash of the answer."""
        return hashlib.sha256(self.text).hexdigest()[:16]

    @property
    def key(self) -> tuple[str, str, str]:
        """What a grade must be of, to be the grade of this."""
        return self.student, self.exercise.stem, self.answer


def version() -> str:
    """A short hash of the checks and the grader: equal means that verdicts compare."""
    files = [*EXERCISES.glob("grader/*.py"), *EXERCISES.glob("grader/.pytest.toml")]
    files += EXERCISES.glob("*/test_exercise.py")
    # The servers that an exercise brings with it.
    files += EXERCISES.glob("*/servers/**/*.py")
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(EXERCISES).as_posix().encode() + b"\0")
        # Git writes other ends of lines on Windows.
        digest.update(file.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:12]


def sort_out(
    found: Iterable[Submission], exercises: Iterable[Exercise]
) -> tuple[list[Job], list[Grade]]:
    """What is to be checked, and the grades of what was not handed in or cannot be read."""
    jobs, grades = [], []
    known = {exercise.stem: exercise for exercise in exercises}
    for submission in found:
        student, note = submission.student, NOT_HANDED_IN
        try:
            answers = submission.answers(known)
        except Refused as refused:
            answers, note = {}, str(refused)
        for stem, exercise in known.items():
            if stem in answers:
                jobs.append(Job(student, exercise, answers[stem]))
            else:
                grades.append(Grade(student, stem, exercise.total, note=note))
    return jobs, grades


def grade_all(jobs: Iterable[Job], seed: int, workers: int) -> Generator[Grade, None, None]:
    """Check all answers, several at once, and give each grade as soon as there is one."""
    pool = ThreadPoolExecutor(workers)
    try:
        waiting = [pool.submit(grade_one, job, seed) for job in jobs]
        for done in as_completed(waiting):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def grade_one(job: Job, seed: int) -> Grade:
    """Check one answer; whatever breaks, the class goes on."""
    grade = Grade(job.student, job.exercise.stem, job.exercise.total, answer=job.answer)
    started = time.monotonic()
    try:
        grade.results = check_apart(job.exercise, job.text, seed)
    except Exception as error:
        grade.results = [fault(job.exercise, "the checks did not end well", str(error))]
    grade.seconds = round(time.monotonic() - started, 3)
    # A missing result is a fault of the grader, never a pass.
    if sum(result.points for result in grade.results) != grade.total and not grade.fault:
        grade.results.append(fault(job.exercise, "results are missing", ""))
    grade.earned = sum(result.earned for result in grade.results)
    return grade


def check_apart(exercise: Exercise, text: bytes, seed: int) -> list[Result]:
    """Run `check --json` on an answer in a process of its own; return the results."""
    with submitted(text) as answer:
        run = subprocess.run(
            [sys.executable, "-m", "exercises", "check", exercise.stem, "--json"]
            + ["--answer", str(answer), "--seed", str(seed)],
            cwd=ROOT,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
    if run.returncode not in JUDGED or not run.stdout:
        raise ValueError((run.stdout + run.stderr).decode(errors="replace")[-2000:])
    return [result_from(result) for result in json.loads(run.stdout)["results"]]


def result_from(data: dict[str, Any]) -> Result:
    """Make a result of what JSON kept."""
    return Result(**data | {"status": Status(data["status"])})


def fault(exercise: Exercise, got: str, log: str) -> Result:
    """The result that stands for those that could not be had."""
    outcome = Outcome.GRADER_FAULT
    return Result(
        stem=exercise.stem,
        task=0,
        name="",
        sentence="the checks run",
        points=0,
        status=Status.FAULT,
        outcome=outcome,
        got=got,
        log=log[-2000:],
        likely=LIKELY[outcome],
    )


class Journal:
    """A file that gets each grade as it comes, a line each, and outlives a broken run."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, grade: Grade, book: Gradebook) -> None:
        """Write down a grade, with what makes it comparable."""
        line = {"version": book.version, "seed": book.seed, "grade": asdict(grade)}
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """What was written down, without a line that a crash cut off."""
        found = []
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        for line in text.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def seed(self) -> int | None:
        """The seed of the last run."""
        lines = self.lines()
        return int(lines[-1]["seed"]) if lines else None

    def kept(self, book: Gradebook) -> dict[tuple[str, str, str], Grade]:
        """The grades that a run with the same seed and version would give again."""
        grades = [
            Grade.read(line["grade"])
            for line in self.lines()
            if (line["version"], line["seed"]) == (book.version, book.seed)
        ]
        return {(g.student, g.stem, g.answer): g for g in grades if not g.fault}
