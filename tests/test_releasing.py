"""What a class gets works without the teacher's part, and so does Gradescope's bundle."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from exercises.grader import commands, grading, releasing
from exercises.grader.course import ROOT, Exercise, exercises

ECHO = Exercise("echo_server")


def call(*words):
    return CliRunner().invoke(commands.app, list(map(str, words)))


def run(root, *words, **options):
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
        **options,
    )


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The course of a class, for tests that only look."""
    folder = tmp_path_factory.mktemp("class") / "course"
    assert call("release", folder).exit_code == 0
    return folder


# The course of a class


def test_a_class_gets_no_solution_and_nothing_the_teacher_left(course):
    paths = [path.relative_to(course).as_posix() for path in course.rglob("*")]

    left = r"instructor|^tests|\.progress|backup|__pycache__|solution|wrong/|\.db|^\.git/"
    assert [path for path in paths if re.search(left, path)] == []
    assert sorted(path for path in paths if "/" not in path) == [
        ".github",
        ".gitignore",
        ".pytest.toml",
        "README.md",
        "examples",
        "exercises",
        "notebooks",
        "requirements.txt",
    ]


def test_a_class_gets_every_exercise_from_its_beginning(course):
    for exercise in exercises():
        folder = course / "exercises" / exercise.stem
        assert (folder / "exercise.py").read_bytes() == exercise.stub.read_bytes()
        assert (folder / "test_exercise.py").exists()


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("exercises/echo_server/exercise-20261120-1.backup.py", True),
        ("exercises/.progress.json", True),
        ("exercises/.progress.new", True),
        ("exercises/instructor/echo_server/solution.py", True),
        ("notebooks/.ipynb_checkpoints/01_echo_server.ipynb", True),
        ("examples/__pycache__/echo_server.cpython-311.pyc", True),
        ("examples/orders.db", True),
        ("exercises/echo_server/.stub.py", False),
        ("exercises/grader/.pytest.toml", False),
        ("notebooks/.nbval.cfg", False),
    ],
)
def test_what_is_left_out(path, left_out):
    assert bool(releasing.LEFT_OUT.search(path)) == left_out


def test_the_texts_of_a_class_speak_only_of_what_is_there(course):
    for name in ["README.md", "exercises/README.md"]:
        text = (course / name).read_text("utf-8")
        assert not re.search(r"instructor|For teachers|verify|\btests/", text)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (course / name).parent.joinpath(target).exists(), target
    assert "## Handing in" in (course / "README.md").read_text("utf-8")
    assert '"tests"' not in (course / ".pytest.toml").read_text("utf-8")


def test_a_class_can_check_and_is_told_that_there_is_no_solution(course, tmp_path):
    root = tmp_path / "course"
    shutil.copytree(course, root)
    shutil.copy(ECHO.solution, root / "exercises" / "echo_server" / "exercise.py")

    checked = run(root, "exercises", "check", "echo_server")
    solution = run(root, "exercises", "solution", "echo_server")
    verified = run(root, "exercises", "verify", "echo_server")

    assert f"{ECHO.total} of {ECHO.total} points. Well done." in checked.stdout
    assert solution.returncode == 2
    assert "has no solution of echo_server" in solution.stdout
    assert verified.returncode == 1
    assert "this copy of the workbook has no solution.py" in " ".join(
        verified.stdout.split()
    )
    assert "Traceback" not in solution.stderr + verified.stderr


def test_pytest_finds_the_notebooks_of_a_class(course):
    found = run(course, "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")

    assert found.returncode == 0, found.stdout
    assert "01_echo_server.ipynb" in found.stdout


def test_a_class_has_the_version_of_its_teacher(course):
    ask = "from exercises.grader.grading import version; print(version())"
    said = subprocess.check_output([sys.executable, "-c", ask], cwd=course, text=True)

    assert said.strip() == grading.version()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", "utf-8")

    assert call("release", tmp_path).exit_code == 2
    assert call("release").exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# The workflow


@pytest.fixture(scope="module")
def steps(course):
    """The steps of the workflow."""
    text = (course / ".github" / "workflows" / "check.yml").read_text("utf-8")
    return yaml.safe_load(text)["jobs"]["check"]["steps"]


def test_the_workflow_checks_everything(steps):
    assert any("check --all --json > results.json" in s.get("run", "") for s in steps)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (
            [("echo", 2, 2), ("echo", 0, 3), ("chat", 0, 4)],
            [
                "| exercise | points | of |",
                "|---|---|---|",
                "| echo | 2 | 5 |",
                "| chat | 0 | 4 |",
            ],
        ),
        (None, ["No results: this is a fault of the grader, not of your work."]),
    ],
)
def test_the_workflow_shows_the_points(steps, tmp_path, results, said):
    names = ("stem", "earned", "points")
    rows = [dict(zip(names, row, strict=True)) for row in results or []]
    text = json.dumps({"results": rows}) if results else ""
    (tmp_path / "results.json").write_text(text, "utf-8")
    environment = os.environ | {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}

    subprocess.run(
        [sys.executable, "-c", steps[-1]["run"]], cwd=tmp_path, env=environment, check=True
    )

    assert (tmp_path / "summary.md").read_text("utf-8").splitlines() == said


# Gradescope's bundle


@pytest.fixture(scope="module")
def autograder(tmp_path_factory):
    """Gradescope's folder, with the bundle unpacked as its container has it."""
    root = tmp_path_factory.mktemp("autograder")
    file = root / "bundle.zip"
    assert call("release", "--gradescope", file, "--only", "echo_server").exit_code == 0
    with zipfile.ZipFile(file) as archive:
        archive.extractall(root / "source")
    return root


def submit(autograder, root, answer=None, **environment):
    """Run the bundle on a submission; returns what Gradescope would read."""
    shutil.copytree(autograder / "source", root / "source")
    folder = root / "submission" / "exercises" / "echo_server"
    folder.mkdir(parents=True)
    if answer:
        shutil.copy(answer, folder / "exercise.py")
    paths = {"AUTOGRADER_ROOT": str(root), "AUTOGRADER_PYTHON": sys.executable}
    subprocess.run(
        ["bash", "source/run_autograder"],
        cwd=root,
        env=os.environ | paths | environment,
        timeout=240,
        check=False,
    )
    return json.loads((root / "results" / "results.json").read_text("utf-8"))


needs_bash = pytest.mark.skipif(sys.platform == "win32", reason="its container is Linux")


@needs_bash
def test_gradescope_gets_the_points_of_a_submission(autograder, tmp_path):
    results = submit(autograder, tmp_path, ECHO.solution)

    assert results["score"] == ECHO.total
    assert {test["status"] for test in results["tests"]} == {"passed"}
    assert {test["tags"][0] for test in results["tests"]} == {"echo_server"}


@needs_bash
def test_gradescope_hears_of_an_empty_submission(autograder, tmp_path):
    results = submit(autograder, tmp_path)

    assert results["score"] == 0
    assert [test["output"] for test in results["tests"]] == ["not handed in"]


@needs_bash
@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_gradescope_gets_results_when_the_grader_breaks(autograder, tmp_path, python):
    results = submit(autograder, tmp_path, ECHO.solution, AUTOGRADER_PYTHON=python)

    assert results["score"] == 0
    assert "no verdict on your work" in results["output"]


def test_the_bundle_holds_no_solution_and_its_scripts_can_run(autograder):
    with zipfile.ZipFile(autograder / "bundle.zip") as archive:
        modes = {m.filename: m.external_attr >> 16 & 0o777 for m in archive.infolist()}

    assert not [path for path in modes if "instructor" in path or "solution" in path]
    assert modes["setup.sh"] == modes["run_autograder"] == 0o755
    assert set(modes.values()) == {0o755, 0o644}


def test_the_bundle_installs_what_grading_needs(autograder):
    text = (autograder / "source" / "requirements.txt").read_text("utf-8")
    whole = (ROOT / "requirements.txt").read_text("utf-8")

    assert "uvicorn" in text
    assert "pytest==" in text
    assert "jupyter" not in text
    assert set(text.splitlines()) <= set(whole.splitlines())


@needs_bash
@pytest.mark.parametrize("name", ["setup.sh", "run_autograder"])
def test_the_scripts_of_the_bundle_are_sound(autograder, name):
    script = autograder / "source" / name

    assert script.read_bytes().startswith(b"#!/usr/bin/env bash\n")
    assert b"\r" not in script.read_bytes()
    subprocess.run(["bash", "-n", script], check=True)


def test_the_same_course_gives_the_same_bundle(tmp_path):
    for name in ["a.zip", "b.zip"]:
        assert call("release", "--gradescope", tmp_path / name).exit_code == 0

    first, second = ((tmp_path / name).read_bytes() for name in ["a.zip", "b.zip"])
    assert first == second


def test_an_unknown_exercise_is_wrong_usage(tmp_path):
    assert call("release", "--gradescope", tmp_path / "a.zip", "--only", "x").exit_code == 2
    assert call("release", tmp_path / "a", "--only", "echo_server").exit_code == 2
    assert list(Path(tmp_path).iterdir()) == []
