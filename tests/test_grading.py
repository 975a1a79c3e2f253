"""Grading a class: every answer gets its verdict, and nothing handed in ends the run."""

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exercises.grader import commands, grading, teaching
from exercises.grader.course import Exercise
from exercises.grader.grading import Grade, Gradebook, Job, Journal, Refused, Submission
from exercises.grader.outcomes import Outcome
from exercises.grader.results import Result, Status
from exercises.grader.verifying import (
    jobs,
    solution_problems,
    stub_problems,
    wrong_problems,
)

ECHO = Exercise("echo_server")
SOLUTION = ECHO.solution.read_bytes()


def zipped(file, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file


def answers(path, stem="echo_server"):
    return Submission("ana", path).answers([stem])


def call(*words):
    return CliRunner().invoke(commands.app, list(map(str, words)))


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A folder for submissions; what is written lands beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "group"
    folder.mkdir()
    return folder


def hand_in(group, student, text=b"# an answer", stem="echo_server"):
    file = group / student / "exercises" / stem / "exercise.py"
    file.parent.mkdir(parents=True)
    file.write_bytes(text)


@pytest.fixture
def checked(monkeypatch):
    """Checks that are over at once: everything passes, unless the answer says otherwise."""
    asked = []

    def check_apart(exercise, text, seed):
        text = text.decode()
        asked.append((exercise.stem, text, seed))
        if "time-out" in text:
            raise subprocess.TimeoutExpired("check", 1)
        points = 0 if "missing" in text else exercise.total
        return [result(exercise, points)] if points else []

    monkeypatch.setattr(grading, "check_apart", check_apart)
    return asked


def result(exercise, points):
    return Result(exercise.stem, 1, "test", "all", points, Status.PASSED, earned=points)


# Finding the answers


def test_the_answer_that_lies_least_deep_is_taken(tmp_path):
    for folder in ["old/mine/echo_server", "mine/echo_server", "echo_server/other"]:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "exercise.py").write_text(folder, "utf-8")

    assert answers(tmp_path) == {"echo_server": b"mine/echo_server"}


def test_folders_of_machines_are_not_searched(tmp_path):
    for folder in [".venv", "__MACOSX", ".git", "node_modules"]:
        (tmp_path / folder / "echo_server").mkdir(parents=True)
        (tmp_path / folder / "echo_server" / "exercise.py").write_text("no", "utf-8")
    members = {f"{name}/echo_server/exercise.py": "no" for name in ["__MACOSX", ".x"]}

    assert answers(tmp_path) == {}
    assert answers(zipped(tmp_path / "a.zip", members)) == {}


@pytest.mark.parametrize("name", ["echo_server/exercise.py", "a\\echo_server\\exercise.py"])
def test_a_zip_is_read_without_being_unpacked(tmp_path, name):
    file = zipped(tmp_path / "ana.zip", {name: b"text", "conftest.py": b"raise SystemExit"})

    assert answers(file) == {"echo_server": b"text"}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "name",
    ["../echo_server/exercise.py", "/echo_server/exercise.py", "C:/x.py", "a\\..\\b"],
)
def test_a_zip_that_leads_elsewhere_is_refused(tmp_path, name):
    file = zipped(tmp_path / "ana.zip", {name: b"", "echo_server/exercise.py": b""})

    with pytest.raises(Refused, match="leads out of it"):
        answers(file)


def test_a_zip_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    bomb = {"echo_server/exercise.py": bytes(grading.ANSWER_LIMIT + 1)}
    file = zipped(tmp_path / "ana.zip", bomb)

    with pytest.raises(Refused, match=r"exercise\.py is larger than 1024 KiB"):
        answers(file)
    monkeypatch.setattr(grading, "UNPACKED_LIMIT", 1024 * 1024)
    with pytest.raises(Refused, match="more than 1 MiB"):
        answers(file)
    monkeypatch.setattr(grading, "MEMBERS_LIMIT", 0)
    with pytest.raises(Refused, match="more than 0 files"):
        answers(file)


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path):
    bomb = {"echo_server/exercise.py": bytes(grading.ANSWER_LIMIT + 1)}
    file = zipped(tmp_path / "ana.zip", bomb)
    true = (grading.ANSWER_LIMIT + 1).to_bytes(4, "little")
    file.write_bytes(file.read_bytes().replace(true, (9).to_bytes(4, "little")))

    with pytest.raises(Refused):
        answers(file)


@pytest.mark.parametrize("damage", [b"", b"PK", b"no zip at all" * 100])
def test_a_broken_zip_is_refused(tmp_path, damage):
    file = tmp_path / "ana.zip"
    file.write_bytes(damage)

    with pytest.raises(Refused, match="the zip is broken"):
        answers(file)


def test_a_zip_with_damaged_or_strangely_packed_members_is_refused(tmp_path):
    members = {"echo_server/exercise.py": b"text" * 1000}
    file = zipped(tmp_path / "ana.zip", members, zipfile.ZIP_STORED)
    file.write_bytes(file.read_bytes().replace(b"texttext", b"tXXttext", 1))
    odd = zipped(tmp_path / "odd.zip", members, zipfile.ZIP_BZIP2)

    with pytest.raises(Refused, match="the zip is broken"):
        answers(file)
    with pytest.raises(Refused, match="unusual"):
        answers(odd)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_somebody_elses_answer_is_refused(tmp_path):
    (tmp_path / "echo_server").mkdir()
    (tmp_path / "echo_server" / "exercise.py").symlink_to(ECHO.solution)

    with pytest.raises(Refused, match="no ordinary file"):
        answers(tmp_path)


def test_names_cannot_take_over_a_terminal():
    assert grading.readable("ana\x1b[2J\n žofie \ud800") == "ana\\x1b[2J\\n žofie \\ud800"


# Grading


def test_a_class_of_known_answers_gets_the_verdicts_it_deserves(tmp_path):
    known = [job for job in jobs(ECHO) if not job.wrong] + jobs(ECHO)[-2:]
    found = []
    for number, job in enumerate(known):
        path = f"work/{ECHO.stem}/exercise.py"
        file = zipped(tmp_path / f"{number}.zip", {path: job.answer.read_bytes()})
        found.append(Submission(str(number), file))
    todo, empty = grading.sort_out(found, [ECHO])

    grades = {int(g.student): g for g in grading.grade_all(todo, seed=7, workers=2)}

    assert empty == []
    for number, job in enumerate(known):
        results = grades[number].results
        if job.wrong:
            assert wrong_problems(job.wrong, results) == []
        elif job.answer == ECHO.solution:
            assert solution_problems(results) == []
            assert grades[number].earned == ECHO.total
        else:
            assert stub_problems(results) == []
            assert grades[number].earned == 0
    assert "--seed 7" in grades[0].lost[0].again


def test_nothing_but_the_answer_reaches_the_check(group, monkeypatch):
    hand_in(group, "ana", SOLUTION)
    (group / "ana" / "exercises" / "echo_server" / "conftest.py").write_text("1/0", "utf-8")
    seen = []

    def look(command, **options):
        folder = Path(command[command.index("--answer") + 1]).parent
        seen.extend((path.name, path.read_bytes()) for path in folder.iterdir())
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr("exercises.grader.grading.subprocess.run", look)

    assert call("grade", group, "--only", "echo_server").exit_code == 3
    assert seen == [("exercise.py", SOLUTION)]


@pytest.mark.parametrize("text", [b"time-out", b"missing"])
def test_a_result_that_cannot_be_had_is_a_fault_and_never_a_pass(group, checked, text):
    hand_in(group, "ana", text)
    hand_in(group, "ben")

    graded = call("grade", group, "--only", "echo_server", "--json", "g.json")

    book = Gradebook.read(Path("g.json").read_text("utf-8"))
    ana, ben = (grades[0] for grades in book.students().values())
    assert graded.exit_code == 3
    assert (ana.fault, ana.earned) == (True, 0)
    assert ana.results[-1].outcome == Outcome.GRADER_FAULT
    assert (ben.fault, ben.earned) == (False, ECHO.total)


def test_a_check_that_breaks_inside_is_a_fault_too(monkeypatch):
    monkeypatch.setattr("exercises.grader.grading.sys.executable", shutil.which("true"))

    grade = grading.grade_one(Job("ana", ECHO, SOLUTION), seed=1)

    assert grade.fault
    assert grade.earned == 0


def test_what_was_not_handed_in_has_no_points_and_a_note(group, checked):
    hand_in(group, "ana")
    (group / "ben").mkdir()
    (group / "zoe.zip").write_bytes(b"broken")

    graded = call("grade", group, "--only", "echo_server", "--json", "g.json")

    students = Gradebook.read(Path("g.json").read_text("utf-8")).students()
    assert graded.exit_code == 0
    assert students["ben"][0].note == "not handed in"
    assert "the zip is broken" in students["zoe"][0].note
    assert [grades[0].earned for grades in students.values()] == [ECHO.total, 0, 0]


def test_without_outputs_a_table_is_shown_and_only_the_journal_written(group, checked):
    hand_in(group, "[red]ana")

    graded = call("grade", group, "--only", "echo_server", "-j", 1)

    rows = [line.split() for line in graded.stdout.splitlines()]
    assert ["[red]ana", str(ECHO.total), str(ECHO.total)] in rows
    assert f"1 of 1: [red]ana echo_server {ECHO.total} of {ECHO.total}" in graded.stderr
    assert [p.name for p in sorted(Path.cwd().iterdir())] == ["grades.jsonl", "group"]


def test_every_output_is_written_beside_the_journal(group, checked):
    hand_in(group, "ana")
    files = ["json", "csv", "junit", "html", "gradescope", "classroom50"]
    options = [word for name in files for word in (f"--{name}", f"out/{name}")]

    assert call("grade", group, *options).exit_code == 0
    written = sorted(p.name for p in Path("out").iterdir())
    assert written == sorted([*files, "grades.jsonl"])


def test_grading_goes_on_where_a_run_broke(group, checked):
    for student in ["ana", "ben", "zoe"]:
        hand_in(group, student, f"# {student}".encode())
    hand_in(group, "max", b"time-out")
    options = ["--only", "echo_server", "--json", "g.json"]
    assert call("grade", group, *options, "--seed", 5).exit_code == 3
    lines = Path("grades.jsonl").read_text("utf-8").splitlines()
    kept = [line for line in lines if '"zoe"' not in line]
    Path("grades.jsonl").write_text("\n".join([*kept, lines[0][:40], ""]), "utf-8")
    (group / "ben" / "exercises" / "echo_server" / "exercise.py").write_bytes(b"# mended")
    checked.clear()

    assert call("grade", group, *options, "--resume").exit_code == 3

    asked = {text for _, text, _ in checked}
    assert asked == {"# zoe", "# mended", "time-out"}
    assert {seed for _, _, seed in checked} == {5}
    students = Gradebook.read(Path("g.json").read_text("utf-8")).students()
    assert [g[0].earned for g in students.values()] == [
        ECHO.total,
        ECHO.total,
        0,
        ECHO.total,
    ]


@pytest.mark.parametrize("other", [{"seed": 6}, {"version": "another"}])
def test_what_was_graded_otherwise_is_graded_again(tmp_path, other):
    book = Gradebook.begin([ECHO], seed=5)
    journal = Journal(tmp_path / "grades.jsonl")
    journal.add(Grade("ana", "echo_server", 10, answer="h"), book)

    assert list(journal.kept(book)) == [("ana", "echo_server", "h")]
    assert journal.kept(replace(book, **other)) == {}


def test_results_are_written_down_as_they_come(group, checked, monkeypatch):
    for student in ["ana", "ben"]:
        hand_in(group, student)

    def broken(grades, jobs):
        yield next(iter(grades))
        raise KeyboardInterrupt

    monkeypatch.setattr(teaching, "announced", broken)

    graded = call("grade", group, "--only", "echo_server", "--csv", "g.csv")

    assert graded.exit_code not in (0, 3)
    assert len(Journal(Path("grades.jsonl")).lines()) == 1
    assert not Path("g.csv").exists()


@pytest.mark.parametrize("others", [[], ["notes.txt"]])
def test_a_class_of_nobody_is_wrong_usage(group, others):
    for name in others:
        (group / name).touch()

    graded = call("grade", group)

    assert graded.exit_code == 2
    assert "holds no folder and no zip" in " ".join(graded.output.replace("│", "").split())


def test_a_student_that_is_there_twice_is_wrong_usage(group):
    (group / "ana").mkdir()
    zipped(group / "ana.zip", {})

    graded = call("grade", group)

    assert graded.exit_code == 2
    assert "ana" in graded.output


def test_what_is_no_submission_is_named(group, checked):
    hand_in(group, "ana")
    (group / "ben.rar").touch()

    graded = call("grade", group, "--only", "echo_server")

    assert "left out: ben.rar is neither a folder nor a zip" in graded.stderr


def test_a_gradebook_survives_being_written(tmp_path):
    book = Gradebook.begin([ECHO], seed=3)
    book.grades.append(Grade("ana", "echo_server", 10, results=[result(ECHO, 10)]))

    again = Gradebook.read(book.write())

    assert again == book
    assert again.grades[0].results[0].status is Status.PASSED
    assert json.loads(book.write())["date"].endswith("Z")


def test_the_version_changes_with_the_checks_and_nothing_else(tmp_path, monkeypatch):
    for name in ["grader/a.py", "echo/test_exercise.py", "echo/exercise.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"a\n")
    monkeypatch.setattr(grading, "EXERCISES", tmp_path)
    before = grading.version()

    (tmp_path / "echo" / "exercise.py").write_bytes(b"b\n")
    (tmp_path / "grader" / "a.py").write_bytes(b"a\r\n")
    same = grading.version()
    (tmp_path / "echo" / "test_exercise.py").write_bytes(b"b\n")

    assert same == before
    assert grading.version() != before
