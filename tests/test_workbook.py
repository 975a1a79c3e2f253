"""The house rules: every lesson is whole, and what the texts say is what the code does."""

import ast
import itertools
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest

from exercises.grader.course import MARK, Exercise, exercises
from exercises.grader.serving import load

ROOT = Path(__file__).parent.parent
TOP_LEVEL = {"README.md", "examples", "exercises", "notebooks", "requirements.txt", "tests"}
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d\d) \| .*?`(\w+)`.*\|$", re.MULTILINE)

LESSONS = {stem: number for number, stem in ROW.findall(README)}
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
SERVERS = [script for script in SCRIPTS if script.stem.endswith("_server")]
MEMBERS = [
    script
    for script in SERVERS
    if "async def talk(self)" in script.read_text(encoding="utf-8")
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXERCISES = exercises()
PAGES = sorted((ROOT / "examples").glob("*.html"))

# The one notebook without a script and an exercise: what the patterns cost.
COST = ROOT / "notebooks" / "17_cost.ipynb"
LECTURES = [notebook for notebook in NOTEBOOKS if notebook != COST]


def by_name(path: Path | Exercise) -> str:
    return path.stem


@cache
def git(*arguments: str) -> str | None:
    """What git says, or `None` where this is no checkout."""
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return run.stdout if run.returncode == 0 else None


def tracked() -> list[str]:
    files = git("ls-files")
    if files is None:
        pytest.skip(
            "this is not a checkout of git, so nothing says which files belong to it"
        )
    return files.splitlines()


def cells(notebook: Path, kind: str) -> list[dict]:
    whole = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in whole["cells"] if cell["cell_type"] == kind]


# The course


def test_the_top_level_is_what_it_was_meant_to_be():
    tops = {file.split("/")[0] for file in tracked()}

    assert {top for top in tops if not top.startswith(".")} == TOP_LEVEL


def test_every_server_is_a_lesson_and_every_lesson_has_a_server():
    assert sorted(LESSONS) == [script.stem for script in SERVERS]


def test_lessons_are_numbered_in_the_order_of_their_rows():
    assert list(LESSONS.values()) == [f"{n:02}" for n in range(1, len(LESSONS) + 1)]


@pytest.mark.parametrize("stem", LESSONS)
def test_every_part_of_a_lesson_exists(stem):
    parts = [f"examples/{stem}.py", f"examples/{stem}.html", f"tests/test_{stem}.py"]
    names = ["README.md", "exercise.py", ".stub.py", "test_exercise.py", "hints.md"]
    parts += [f"exercises/{stem}/{name}" for name in names]
    parts += [f"exercises/instructor/{stem}/solution.py"]
    parts += [f"notebooks/{LESSONS[stem]}_{stem}.ipynb"]

    assert [part for part in parts if not (ROOT / part).exists()] == []


def test_every_notebook_and_page_belongs_to_a_lesson():
    notebooks = {notebook.stem for notebook in LECTURES}

    assert notebooks == {f"{number}_{stem}" for stem, number in LESSONS.items()}
    assert {page.stem for page in PAGES} == set(LESSONS)


# Scripts


@pytest.mark.parametrize("script", SERVERS, ids=by_name)
def test_a_docstring_names_the_pattern_the_notebook_and_the_exercise(script):
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
    stem, said = script.stem, " ".join(text.split())

    assert re.match(r"[A-Z][\w -]+: .+\.$", text.splitlines()[0])
    assert f"notebooks/{LESSONS[stem]}_{stem}.ipynb" in said
    assert f"exercises/{stem}" in said
    assert "http://127.0.0.1:8000" in said


@pytest.mark.parametrize("script", SCRIPTS, ids=by_name)
def test_a_script_stands_alone(script):
    others = {other.stem for other in SCRIPTS} | {"exercises", "tests", "notebooks", "lab"}

    assert not imported(script) & others


@pytest.mark.parametrize("name", ["catch_up", "write", "talk", "close", "broadcast"])
def test_a_member_is_the_same_in_all_scripts(name):
    """A student who has read it in lesson 3 may skip it in the lessons that follow."""
    found = {script.stem: functions(script).get(name) for script in MEMBERS}
    if name == "catch_up":  # Those who only listen have nothing to catch up with.
        found = {stem: code for stem, code in found.items() if code}

    assert found == dict.fromkeys(found, found["chat_server"])


@pytest.mark.parametrize("name", ["close", "drain"])
def test_what_other_scripts_share_is_the_same_in_all(name):
    others = [script for script in SERVERS if script not in MEMBERS]
    found = {functions(script)[name] for script in others if name in functions(script)}

    assert len(found) == 1


def functions(script: Path) -> dict[str, str]:
    """The functions of a script and the methods of its Member, with their comments."""
    source = script.read_text(encoding="utf-8")
    tree = ast.parse(source)
    members = [node.body for node in tree.body if getattr(node, "name", "") == "Member"]
    return {
        node.name: textwrap.dedent(ast.get_source_segment(source, node, padded=True))
        for node in [*tree.body, *itertools.chain.from_iterable(members)]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("script", SERVERS, ids=by_name)
def test_parameters_of_routes_have_no_default_values_of_the_old_kind(script):
    """`Annotated[str, Query()]`, and never `token: str = Query()`."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.decorator_list:
            defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            assert not [each for each in defaults if isinstance(each, ast.Call)], node.name


@pytest.mark.parametrize("script", SERVERS, ids=by_name)
def test_the_command_of_the_docstring_starts_the_server(script, tmp_path):
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
    command = re.search(rf"^    (uvicorn {script.stem}:app.*)$", text, re.MULTILINE)[1]

    assert_starts(command.replace(" --reload", ""), script.parent, tmp_path)


def assert_starts(command: str, folder: Path, home: Path) -> None:
    """Run a command as it is typed, on a free port, until it accepts."""
    words = [sys.executable, "-B", "-m", *shlex.split(command), "--port", "0"]
    words += [] if "--app-dir" in command else ["--app-dir", str(folder)]
    place = folder if "--app-dir" in command else home
    with subprocess.Popen(words, cwd=place, stderr=subprocess.PIPE, text=True) as process:
        try:
            log = []
            for line in process.stderr:
                log.append(line)
                if "Uvicorn running on http://127.0.0.1:" in line:
                    return
            pytest.fail("it ended:\n" + "".join(log))
        finally:
            process.kill()


def imported(script: Path) -> set[str]:
    """The top names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_imports_run_one_way():
    for script in (ROOT / "exercises").rglob("*.py"):
        assert not imported(script) & {"tests", "notebooks", "lab"}, script
    for script in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "notebooks").glob("*.py")]:
        assert "tests" not in imported(script), script


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_a_page_is_safe_and_needs_no_other_host(page):
    text = page.read_text(encoding="utf-8")

    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text
    )
    assert not re.search(r"""(src|href)=["'](https?:)?//|@import|url\(""", text)
    assert not re.search(r"localhost|127\.0\.0\.1", text)
    for needed in ['<html lang="en">', "viewport", "<title>", "color-scheme: light dark"]:
        assert needed in text


SOCKET = """, location);
    url.protocol = url.protocol.replace("http", "ws");
    websocket = new WebSocket(url);
"""


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_a_page_builds_its_addresses_below_its_own(page):
    """A proxy may show it below a path: JupyterHub does, for a class."""
    text = page.read_text(encoding="utf-8")

    assert not re.findall(r"location\.\w+", text)
    assert not re.findall(r"(?:fetch|EventSource)\((?!new URL\().*", text)
    assert not re.findall(r"""new URL\((?!["'`][.\w].*, location\)).*""", text)
    assert text.count("new WebSocket(") == 1
    assert text.count(SOCKET) == 1


def test_a_line_that_pages_share_is_the_same_in_all():
    """What a close code means, how it is shown, and what a name may not be."""
    for part in [r"  const CODES = {(?s:.*?)};\n", r" *const why = .*\n.*\n"]:
        assert len({textwrap.dedent(found(part, page)) for page in PAGES}) == 1
    named = [page for page in PAGES if "isName" in page.read_text(encoding="utf-8")]
    assert len(named) == 7
    function = r"(?:  //.*\n)*  function isName(?s:.*?)\n  }\n"
    assert len({found(function, page) for page in named}) == 1


def found(pattern: str, file: Path) -> str:
    """The one place in a file."""
    (place,) = re.findall(pattern, file.read_text(encoding="utf-8"))
    return place


# Notebooks


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=by_name)
def test_every_cell_of_a_notebook_was_run_from_top_to_bottom(notebook):
    counts = [cell["execution_count"] for cell in cells(notebook, "code")]

    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("notebook", LECTURES, ids=by_name)
def test_a_notebook_quotes_its_script_word_for_word(notebook):
    script = ROOT / "examples" / f"{notebook.stem[3:]}.py"
    code = textwrap.dedent(script.read_text(encoding="utf-8"))
    prose = "\n".join("".join(cell["source"]) for cell in cells(notebook, "markdown"))
    quotes = re.findall(r"^```python\n(.*?)^```", prose, re.MULTILINE | re.DOTALL)

    assert quotes
    for quote in quotes:
        assert any(
            textwrap.indent(quote, " " * depth) in code for depth in (0, 4, 8, 12)
        ), quote


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=by_name)
def test_a_notebook_never_hides_or_complains(notebook):
    for cell in cells(notebook, "code"):
        # nbval would compare the value that a semicolon hides.
        assert not "".join(cell["source"]).rstrip().endswith(";")
        assert not [out for out in cell["outputs"] if out.get("name") == "stderr"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=by_name)
def test_a_notebook_has_short_cells_and_fits_into_an_hour(notebook):
    code = ["".join(cell["source"]) for cell in cells(notebook, "code")]
    # A program that a cell serves is as long as the program is.
    lengths = [len(text.splitlines()) for text in code if not text.startswith("%%serve")]
    prose = "\n".join("".join(cell["source"]) for cell in cells(notebook, "markdown"))
    prose = re.sub(r"^```.*?^```", "", prose, flags=re.MULTILINE | re.DOTALL)

    assert max(lengths) <= 12
    assert statistics.median(lengths) <= 6
    assert 1200 <= len(re.findall(r"\S*\w\S*", prose)) <= 1800


def test_no_helper_is_defined_in_two_notebooks():
    """What two of them need is a verb of lab.py."""
    defined = []
    for notebook in NOTEBOOKS:
        code = ["".join(cell["source"]) for cell in cells(notebook, "code")]
        code = [text for text in code if not text.startswith("%%serve")]
        names = re.findall(
            r"^(?:async )?(?:def|class) (\w+)", "\n".join(code), re.MULTILINE
        )
        defined += set(names)

    assert sorted(defined) == sorted(set(defined))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=by_name)
def test_a_notebook_ends_as_all_do(notebook):
    prose = "\n".join("".join(cell["source"]) for cell in cells(notebook, "markdown"))
    ends = re.findall(r"^## (What to remember|Questions|Exercise)$", prose, re.MULTILINE)

    exercise = [] if notebook == COST else ["Exercise"]
    assert ends == ["What to remember", "Questions", *exercise]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=by_name)
def test_a_notebook_names_the_next(notebook):
    number = int(notebook.stem[:2]) + 1
    following = [stem for stem, of in LESSONS.items() if int(of) == number]
    last = "".join(cells(notebook, "markdown")[-1]["source"]).splitlines()[-1]

    for stem in following:
        assert f"Next: [lesson {number}]({number:02}_{stem}.ipynb)" in last


# Exercises


@pytest.mark.parametrize("exercise", EXERCISES, ids=by_name)
def test_a_readme_names_what_is_next(exercise):
    readme = (exercise.folder / "README.md").read_text(encoding="utf-8")

    assert re.match(r"Next: \[.+\]\(.+\), .+\.$", readme.splitlines()[-1])


@pytest.mark.parametrize("exercise", EXERCISES, ids=by_name)
def test_task_numbers_agree_in_readme_checks_and_hints(exercise):
    numbers = [task.number for task in exercise.tasks]

    assert numbers == list(range(1, len(numbers) + 1))
    assert 2 <= len(numbers) <= 4
    assert sorted(exercise.points) == numbers
    assert sorted(exercise.hints) == numbers
    assert all(exercise.hints.values())
    todo = re.findall(r"TODO (\d+):", exercise.stub.read_text(encoding="utf-8"))
    assert sorted(map(int, todo)) == numbers


@pytest.mark.parametrize("exercise", EXERCISES, ids=by_name)
def test_a_readme_says_how_to_run_and_to_check(exercise):
    readme = (exercise.folder / "README.md").read_text(encoding="utf-8")

    for needed in [
        "*You will practise:*",
        "*Not needed:*",
        f"python -m exercises check {exercise.stem}",
        "exercise.py",
    ]:
        assert needed in readme


@pytest.mark.parametrize("exercise", EXERCISES, ids=by_name)
def test_every_check_has_a_sentence_and_advice(exercise):
    tree = ast.parse(exercise.checks.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)]
    checks = [each for each in functions if each.name.startswith("test_")]

    for check in checks:
        calls = [mark for mark in check.decorator_list if isinstance(mark, ast.Call)]
        marks = {ast.unparse(call.func) for call in calls}
        assert marks >= {"pytest.mark.task", "pytest.mark.likely"}, check.name
        assert ast.get_docstring(check), check.name
    written = exercise.checks.read_text(encoding="utf-8")
    assert len(MARK.findall(written)) == len(checks), "a mark that the course cannot read"


@pytest.mark.parametrize("exercise", EXERCISES, ids=by_name)
def test_there_are_three_wrong_answers_or_more(exercise):
    assert len(exercise.wrong_answers) >= 3


@pytest.mark.skipif("CI" not in os.environ, reason="a student's exercise.py is not a stub")
@pytest.mark.parametrize("exercise", EXERCISES, ids=by_name)
def test_an_exercise_begins_as_its_stub(exercise):
    assert exercise.answer.read_bytes() == exercise.stub.read_bytes()


# Texts


def test_the_first_command_of_the_readme_starts_the_echo_server(tmp_path):
    command = re.search(r"^python3 -m venv .*/(uvicorn .+)$", README, re.MULTILINE)[1]

    assert_starts(command, ROOT, tmp_path)


def test_the_pictures_of_the_readme_are_those_of_the_notebooks():
    take_pictures = load(ROOT / ".ci" / "take_pictures.py")
    shown = set(re.findall(r"\]\(\.github/pictures/(.+)\)", README))

    assert shown == set(take_pictures.SOURCES)
    for name in shown:
        taken = (take_pictures.PLACE / name).read_bytes()
        assert taken == take_pictures.picture(name), "run python .ci/take_pictures.py"


def test_ci_runs_the_test_command_of_the_readme():
    command = re.search(r"^python3 -m venv .*pytest$", README, re.MULTILINE)[0]

    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", ["requirements.txt", ".ci/requirements.txt"])
def test_every_requirement_is_pinned_and_has_a_reason(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()

    for line in filter(None, lines):
        assert re.match(r"#|-r |[\w\[\]-]+==[\w.]+(; .+?)? +# \w+", line), line


def test_links_between_texts_lead_somewhere():
    for file in tracked():
        if file.endswith(".md"):
            text = (ROOT / file).read_text(encoding="utf-8")
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
                assert (ROOT / file).parent.joinpath(target).exists(), f"{file}: {target}"


def test_nobody_sleeps_in_tests():
    """A client that talks at a pace of its own may pause, by a constant that says so."""
    for script in [
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "exercises").glob("*/test_*.py"),
    ]:
        calls = [
            ast.unparse(node)
            for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        ]
        slept = [call for call in calls if re.match(r"(\w+\.)?sleep\((?!0\))[\d.]", call)]
        assert slept == [], script
