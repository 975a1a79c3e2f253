"""The command line does what it says, remembers it, and says what is wrong."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exercises.grader import commands, course
from exercises.grader.course import Progress, WrongAnswer
from exercises.grader.results import Result, Status
from exercises.grader.verifying import wrong_problems

ROOT = Path(__file__).parent.parent
README = """\
# Make a parrot

## 1. Repeat

## 2. End
"""
HINTS = """\
# Hints

## 1

- the first
  nudge
- the second

## 2

- the only one
"""
CHECKS = '''
import pytest

@pytest.mark.task(1, points=2)
@pytest.mark.likely(wrong_message="shouting")
async def test_echo(conversation, word):
    """every text comes back"""
    ana = await conversation.join("ana")
    text = word()
    await ana.send(text)
    await ana.expect(text)

@pytest.mark.task(2, points=1)
async def test_end(conversation):
    """who says bye is closed with 1000"""
    ana = await conversation.join("ana")
    await ana.send("bye")
    await ana.expect_close(1000)
'''
STUB = "# to do\nasync def app(scope, receive, send):\n    pass\n"
ANSWER = """\
'''{said}'''

async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({{"type": "websocket.accept"}})
    while text := (await receive()).get("text"):
        if text == "bye":
            await send({{"type": "websocket.close", "code": {code}}})
            return
        await send({{"type": "websocket.send", "text": {text}}})
"""


def answer(text="text", code=1000, said=""):
    return ANSWER.format(text=text, code=code, said=said)


def wrong(said, **answers):
    names = ["fails", "outcome", "advice"]
    lines = [f"{name}: {what}" for name, what in zip(names, said, strict=True)]
    return answer(said="\n".join(["Wrong.", "", *lines, ""]), **answers)


def build(root):
    """A course of two exercises, `parrot` and `other`, with a grader of its own."""
    shutil.copytree(
        ROOT / "exercises" / "grader",
        root / "exercises" / "grader",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(ROOT / "exercises" / name, root / "exercises" / name)
    (root / "README.md").write_text("| 01 | `parrot` |\n| 02 | `other` |\n", "utf-8")
    for stem in ("other", "parrot"):
        folder = root / "exercises" / stem
        folder.mkdir()
        (folder / "README.md").write_text(README, "utf-8")
        (folder / "hints.md").write_text(HINTS, "utf-8")
        (folder / "test_exercise.py").write_text(CHECKS, "utf-8")
        for name in ("exercise.py", ".stub.py"):
            (folder / name).write_text(STUB, "utf-8")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A course in a folder of its own, which the commands in this process use too."""
    build(tmp_path)
    monkeypatch.setattr(course, "ROOT", tmp_path)
    monkeypatch.setattr(course, "EXERCISES", tmp_path / "exercises")
    file = tmp_path / "exercises" / ".progress.json"
    monkeypatch.setattr(course, "PROGRESS", file)
    monkeypatch.setattr(Progress.__init__, "__defaults__", (file,))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def parrot(root):
    return root / "exercises" / "parrot"


def call(*words):
    """Call a command in this process."""
    return CliRunner().invoke(commands.app, words)


def run(root, *words, cwd=None, **options):
    """Call a command as a student does, with its output in a pipe."""
    command = [sys.executable, "-m", "exercises", *words]
    return subprocess.run(
        command, cwd=cwd or root, capture_output=True, text=True, timeout=60, **options
    )


def earned(*points):
    """Pretend that these points were earned in the parrot's tasks."""
    progress = Progress()
    tasks = {str(number): given for number, given in enumerate(points, start=1)}
    progress.standings["parrot"] = course.Standing(points=tasks)
    progress.save()


def test_every_module_of_the_grader_can_be_the_first_that_is_imported():
    code = """
        import importlib, pkgutil, sys
        import exercises.grader
        for module in list(pkgutil.iter_modules(exercises.grader.__path__)):
            for name in [name for name in sys.modules if name.startswith("exercises")]:
                del sys.modules[name]
            importlib.import_module(f"exercises.grader.{module.name}")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]

    imported = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert imported.returncode == 0, imported.stderr


# The dashboard


def test_the_dashboard_shows_the_points_and_what_to_do_next(root):
    earned(2)

    shown = call()

    assert shown.exit_code == 0
    rows = [line.split() for line in shown.output.splitlines()]
    assert ["parrot", "Make", "a", "parrot", "2", "of", "3", "██████░░░░"] in rows
    assert ["other", "Make", "a", "parrot", "0", "of", "3", "░░░░░░░░░░"] in rows
    assert rows[0] == ["exercise", "what", "you", "build", "points"]
    assert "Next: read exercises/parrot/README.md" in shown.output.replace("\\", "/")
    assert "python -m exercises check parrot" in shown.output


def test_the_dashboard_goes_on_to_the_next_exercise(root):
    earned(2, 1)

    assert "python -m exercises check other" in call().output


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"parrot": 3}', '{"parrot": {"x": 1}}', "\x00\xff", "null"]
)
def test_a_damaged_memory_of_the_progress_does_no_harm(root, damage):
    course.PROGRESS.write_text(damage, "latin-1")

    assert "0 of 3" in call().output
    assert call("hint").exit_code == 0
    assert json.loads(course.PROGRESS.read_text("utf-8"))["parrot"]["hints"] == {"1": 1}


@pytest.mark.parametrize(
    "damage", ['{"points": {"1": "x"}}', '{"points": null}', '{"hints": {"1": null}}']
)
def test_a_standing_of_the_wrong_shape_does_no_harm(root, damage):
    course.PROGRESS.write_text(f'{{"parrot": {damage}}}', "utf-8")

    assert call().exit_code == 0
    assert call("hint").exit_code == 0


# Checking


def test_checking_remembers_the_points_and_says_so_in_plain_text(root, parrot):
    (parrot / "exercise.py").write_text(answer(code=1001), "utf-8")

    first = run(root, "check")

    assert first.returncode == 1, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0] == "parrot · Make a parrot"
    assert " ".join(lines[1].split()) == "✓ task 1 · every text comes back 2 of 2 points"
    assert "2 of 3 points. A hint: python -m exercises hint parrot" in lines
    assert "\x1b" not in first.stdout
    assert Progress().standings["parrot"].points == {"1": 2, "2": 0}


def test_json_is_nothing_but_json(root, parrot):
    (parrot / "exercise.py").write_text(answer(), "utf-8")

    checked = run(root, "check", "--all", "--json", "--seed", "7")

    said = json.loads(checked.stdout)
    assert (checked.returncode, said["seed"]) == (1, 7)
    results = [(r["stem"], r["task"], r["earned"]) for r in said["results"]]
    assert results == [("parrot", 1, 2), ("parrot", 2, 1), ("other", 1, 0), ("other", 2, 0)]


def test_another_answer_is_checked_from_any_folder_and_not_remembered(root, tmp_path):
    elsewhere = tmp_path / "my answers"
    elsewhere.mkdir()
    (elsewhere / "it is.this.py").write_text(answer(), "utf-8")
    path = {"PYTHONPATH": str(root)}

    checked = run(
        root, "check", "parrot", "--answer", "it is.this.py", cwd=elsewhere, env=path
    )

    assert "3 of 3 points. Well done." in checked.stdout
    assert checked.returncode == 0
    assert not course.PROGRESS.exists()


def test_one_task_is_checked_alone(root, parrot):
    (parrot / "exercise.py").write_text(answer(text="'wrong'"), "utf-8")

    checked = call("check", "parrot", "--task", "2")

    assert checked.exit_code == 0, checked.output
    assert "1 of 1 points" in checked.output
    assert Progress().standings["parrot"].points == {"2": 1}


def test_a_fault_of_the_grader_costs_nothing(root, parrot):
    (parrot / "test_exercise.py").write_text(
        CHECKS.replace("ana.send", "ana.shout"), "utf-8"
    )
    (parrot / "exercise.py").write_text(answer(), "utf-8")
    earned(2, 1)

    checked = call("check", "parrot", "--task", "1")

    assert checked.exit_code == 3
    assert "this costs you nothing" in checked.output
    assert Progress().standings["parrot"].points == {"1": 2, "2": 1}


def test_a_fault_of_the_grader_costs_no_later_task_its_points(root, parrot):
    (parrot / "test_exercise.py").write_text(
        CHECKS.replace("ana.send(text)", "ana.shout(text)"), "utf-8"
    )
    (parrot / "exercise.py").write_text(answer(), "utf-8")
    earned(2, 1)

    checked = call("check", "parrot")

    assert checked.exit_code == 3
    assert Progress().standings["parrot"].points == {"1": 2, "2": 1}


def test_ctrl_c_in_a_check_ends_the_command_and_changes_nothing(root, parrot):
    # What a shell starts in the background ignores Ctrl-C, and so does all below it.
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    presses = f"{heeds}; signal.raise_signal(signal.SIGINT)"
    checks = CHECKS.replace('await ana.send("bye")', presses)
    (parrot / "test_exercise.py").write_text(checks, "utf-8")
    (parrot / "exercise.py").write_text(answer(), "utf-8")
    earned(2, 1)

    checked = run(root, "check", "parrot")

    assert checked.returncode not in (0, 3), checked.stderr
    assert "✓ task 1" in checked.stdout
    assert "of 3 points" not in checked.stdout
    assert Progress().standings["parrot"].points == {"1": 2, "2": 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "chat"], ["parrot", "other"]),
        (["hint", "chat"], ["parrot", "other"]),
        (["reset", "chat"], ["parrot", "other"]),
        (["check", "parrot", "--task", "9"], ["1", "2", "not 9"]),
        (["check", "--task", "0"], ["1", "2", "not 0"]),
        (["hint", "parrot", "--task", "9"], ["1", "2", "not 9"]),
        (["hint", "parrot", "--task", "0"], ["1", "2", "not 0"]),
        (["check", "parrot", "--all"], ["not both"]),
        (["check", "parrot", "--answer", "nowhere.py"], ["nowhere.py"]),
        (["check", "parrot", "--answer", "."], ["directory"]),
        (["check", "parrot", "--task", "x"], ["integer"]),
        (["reset"], ["stem"]),
        (["chek"], ["check"]),
    ],
)
def test_wrong_usage_says_what_is_right_and_exits_with_2(root, words, said):
    wrong = call(*words)

    assert wrong.exit_code == 2, wrong.output
    for word in said:
        assert word in wrong.output.lower()
    assert not course.PROGRESS.exists()


@pytest.mark.parametrize("name", ["exercises/parrot", "exercises/parrot/", "./parrot"])
def test_an_exercise_may_be_named_by_its_folder(root, name):
    assert "parrot, task 1" in call("hint", name).output


def test_an_answer_that_is_gone_is_no_fault_of_the_grader(root, parrot):
    (parrot / "exercise.py").unlink()

    checked = call("check", "parrot")

    assert checked.exit_code in (1, 2)
    assert "exercise.py" in checked.output


# Hints and new beginnings


def test_each_hint_adds_one_and_they_are_remembered(root):
    hints = [call("hint").output for _ in range(3)]

    assert "parrot, task 1, hint 1 of 2:" in hints[0]
    assert "- the first nudge" in hints[0]
    assert "the second" not in hints[0]
    assert "- the first nudge\n- the second" in hints[1]
    assert hints[2] == hints[1]
    assert "That was the last one." in hints[2]


def test_a_hint_is_for_the_first_task_that_is_not_done(root):
    earned(2)

    assert "task 2, hint 1 of 1" in call("hint", "parrot").output
    assert "task 1, hint 1 of 2" in call("hint", "parrot", "--task", "1").output


def test_a_new_beginning_keeps_every_answer_beside_it(root, parrot):
    earned(2, 1)
    texts = ["# first", "# second", "# third"]

    for text in texts:
        (parrot / "exercise.py").write_text(text, "utf-8")
        assert call("reset", "parrot").exit_code == 0

    backups = sorted(parrot.glob("*.backup.py"))
    assert [backup.read_text("utf-8") for backup in backups] == texts
    assert (parrot / "exercise.py").read_text("utf-8") == STUB
    assert "parrot" not in Progress().standings


def test_a_new_beginning_needs_no_answer(root, parrot):
    (parrot / "exercise.py").unlink()

    assert call("reset", "parrot").exit_code == 0

    assert (parrot / "exercise.py").read_text("utf-8") == STUB


# Proving an exercise


@pytest.fixture
def known(tmp_path):
    """A course whose parrot has answers of all kinds."""
    build(tmp_path)
    (tmp_path / "exercises" / "parrot" / ".stub.py").write_text(answer(code=1001), "utf-8")
    instructor = tmp_path / "exercises" / "instructor" / "parrot"
    (instructor / "wrong").mkdir(parents=True)
    (instructor / "solution.py").write_text(answer(code=1002), "utf-8")
    echo = ["test_echo", "wrong message", "shouting"]
    end = ["test_end", "wrong message", "compare"]
    answers = {
        "as_it_says": wrong(echo, text="text.upper()"),
        "fails_before": wrong(end, text="text.upper()", code=1002),
        "names_nothing": wrong(["test_nothing", *echo[1:]]),
        "passes": wrong(echo),
    }
    for name, text in answers.items():
        (instructor / "wrong" / f"{name}.py").write_text(text, "utf-8")
    return tmp_path


def test_verify_finds_what_is_wrong_with_an_answer(known):
    verified = run(known, "verify", "parrot")

    said = " ".join(verified.stdout.split())
    assert verified.returncode == 1
    assert said.count("parrot ") == 6
    assert said.startswith("parrot as_it_says.py: as it should be"), "what is wrong: last"
    for problem in [
        "parrot .stub.py: the stub passes test_echo",
        "parrot solution.py: the solution fails test_end",
        "parrot as_it_says.py: as it should be",
        "parrot fails_before.py: it fails test_echo, not test_end",
        "parrot names_nothing.py: the wrong answer passes",
        "parrot passes.py: the wrong answer passes",
    ]:
        assert problem in said


def test_a_wrong_answer_can_be_verified_by_the_check_that_it_names_alone(known):
    code = """
        from exercises.grader.course import exercises
        from exercises.grader.verifying import jobs, verify_one
        for job in jobs(exercises()[0]):
            print(verify_one(job, quickly=True))
    """

    verified = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=known,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    said = verified.stdout.splitlines()
    for verdict in [
        "parrot .stub.py: the stub passes test_echo",
        "parrot solution.py: the solution fails test_end",
        "parrot as_it_says.py: as it should be",
        "parrot fails_before.py: as it should be",
        "parrot passes.py: the wrong answer passes",
    ]:
        assert [line for line in said if line.startswith(verdict)], verified.stdout
    assert "test_nothing of " in verified.stdout


@pytest.mark.parametrize(
    ("said", "problems"),
    [
        (["test_echo", "wrong message", "shouting"], []),
        (["test_end", "wrong message", "shouting"], ["it fails test_echo, not test_end"]),
        (
            ["test_echo", "silence", "shouting"],
            ["its outcome is 'wrong message', not 'silence'"],
        ),
        (
            ["test_echo", "wrong message", "whispering"],
            ["its advice is 'you are shouting'"],
        ),
        (
            ["", "wrong message", "shouting"],
            ["its docstring must say `fails:`, `outcome:` and `advice:`"],
        ),
    ],
)
def test_a_wrong_answer_must_fail_where_and_as_it_says(tmp_path, said, problems):
    file = tmp_path / "wrong.py"
    file.write_text(wrong(said), "utf-8")
    failed = Result("parrot", 1, "test_echo", "echo", 1, Status.FAILED)
    failed.outcome, failed.likely = "wrong message", "you are shouting"
    later = Result("parrot", 2, "test_end", "end", 1, Status.SKIPPED)

    assert wrong_problems(WrongAnswer(file), [failed, later]) == problems
