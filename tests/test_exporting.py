"""Grades in the formats of others: each as its schema wants it, whatever students write."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import jsonschema
import pytest
from typer.testing import CliRunner

from exercises.grader import commands, exporting, report
from exercises.grader.exporting import Format
from exercises.grader.grading import Grade, Gradebook
from exercises.grader.results import Result, Status

HOSTILE = "<script>alert(1)</script>\"'&]]>\x00\x1b[2J\ud800 =1+1 \ufffe"
DATE = "2026-11-20T14:00:00Z"
EVENTS = [
    {"at": 0.1, "who": "ana", "kind": "joined", "text": "/ws", "here": False},
    {"at": 0.2, "who": "ana", "kind": "received", "text": HOSTILE, "here": True},
]


def check(status, points, earned=0, **said):
    return Result("echo", 1, "test_echo", "echoes", points, status, earned, 0.5, **said)


def failed(text="no"):
    return check(
        Status.FAILED,
        3,
        outcome="silence",
        expected=text,
        got=text,
        events=EVENTS,
        log=text,
    )


@pytest.fixture
def book():
    """Four students: all points, some, nothing handed in, and a fault of the grader."""
    passed, skipped = (
        check(Status.PASSED, 2, 2),
        check(Status.SKIPPED, 3, got="first task 1"),
    )
    fault = check(Status.FAULT, 0, outcome="fault of the grader", got="time-out")
    return Gradebook(
        version="0123456789ab",
        seed=7,
        date=DATE,
        points={"echo": 5, "chat": 3},
        grades=[
            Grade("zoe", "chat", 3, 3, answer="h", results=[check(Status.PASSED, 3, 3)]),
            Grade(
                "zoe",
                "echo",
                5,
                5,
                answer="h",
                results=[passed, check(Status.PASSED, 3, 3)],
            ),
            Grade(HOSTILE, "echo", 5, 2, answer="h", results=[passed, failed(HOSTILE)]),
            Grade(HOSTILE, "chat", 3, 0, answer="h", results=[skipped]),
            Grade("ben", "echo", 5, note="not handed in"),
            Grade("ben", "chat", 3, note=HOSTILE),
            Grade("max", "echo", 5, 2, answer="h", results=[passed, fault]),
            Grade("max", "chat", 3, 3, answer="h", results=[check(Status.PASSED, 3, 3)]),
        ],
    )


# CSV


def test_csv_has_a_line_for_each_student_and_a_column_for_each_lesson(book):
    rows = list(csv.reader(io.StringIO(exporting.csv_text(book))))

    facts = ["8", DATE, "0123456789ab", "7"]
    names = ["student", "echo", "chat", "total", "of", "date", "version", "seed"]
    lines = {row[0]: row[1:] for row in rows}
    assert rows[0] == names
    assert lines["zoe"] == ["5", "3", "8", *facts]
    assert lines["ben"] == ["0", "0", "0", *facts]
    assert lines["max"] == ["fault", "3", "fault", *facts]
    assert len(rows) == 5


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "a,b", 'a"b'])
def test_a_name_is_no_formula_and_stays_in_its_cell(book, name):
    book.grades = [Grade(name, "echo", 5, 5)]

    row = list(csv.reader(io.StringIO(exporting.csv_text(book))))[1]

    assert row[0] == (name if name.startswith("a") else f"'{name}")
    assert row[1:5] == ["5", "", "5", "8"]


# JUnit, as the XSD of Jenkins has it

JUNIT = {
    "testsuites": ({"tests", "failures", "errors", "time"}, {"testsuite"}),
    "testsuite": (
        {"name", "timestamp", "tests", "failures", "errors", "skipped", "time"},
        {"properties", "testcase"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"classname", "name", "time"}, {"failure", "error", "skipped"}),
    "failure": ({"message"}, set()),
    "error": ({"message"}, set()),
    "skipped": ({"message"}, set()),
}


def test_junit_holds_what_its_schema_allows(book):
    root = ElementTree.fromstring(exporting.junit_text(book).encode(errors="strict"))

    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = JUNIT[element.tag]
        assert set(element.attrib) == attributes
        assert {child.tag for child in element} <= children
    for suite in root:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))


def test_junit_counts_what_did_not_pass(book):
    root = ElementTree.fromstring(exporting.junit_text(book).encode())
    counts = ("tests", "failures", "errors", "skipped")

    suites = {suite.get("name"): [suite.get(name) for name in counts] for suite in root}
    assert suites["zoe"] == ["3", "0", "0", "0"]
    assert suites["ben"] == ["2", "2", "0", "0"]
    assert suites["max"] == ["3", "0", "1", "0"]
    assert [root.get(name) for name in counts[:3]] == ["11", "3", "1"]


# Gradescope, as its documentation of results.json has it

SHOWN = {"enum": ["hidden", "after_due_date", "after_published", "visible"]}
FORMATS = {"enum": ["text", "html", "simple_format", "md", "ansi"]}
GRADESCOPE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["score", "tests"],
    "properties": {
        "score": {"type": "integer", "minimum": 0},
        "execution_time": {"type": "number"},
        "output": {"type": "string"},
        "output_format": FORMATS,
        "visibility": SHOWN,
        "stdout_visibility": SHOWN,
        "extra_data": {"type": "object"},
        "tests": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "score": {"type": "integer", "minimum": 0},
                    "max_score": {"type": "integer", "minimum": 0},
                    "status": {"enum": ["passed", "failed"]},
                    "name": {"type": "string"},
                    "name_format": FORMATS,
                    "number": {"type": "string"},
                    "output": {"type": "string", "pattern": "^[^\r]*$"},
                    "output_format": FORMATS,
                    "tags": {"type": "array", "items": {"type": "string"}},
                    # One hidden test would hide the total.
                    "visibility": {"const": "visible"},
                },
            },
        },
    },
}


def test_gradescope_gets_what_its_documentation_asks_for(book):
    for student, grades in book.students().items():
        jsonschema.validate(exporting.gradescope(book, student, grades), GRADESCOPE)


def test_gradescope_shows_the_text_of_the_check_that_failed(book):
    book.grades[2].results[1] = failed("what was said")

    said = exporting.gradescope(book, HOSTILE, book.students()[HOSTILE])

    assert said["score"] == 2
    scores = [(t["number"], t["score"], t["max_score"], t["status"]) for t in said["tests"]]
    assert scores == [
        ("1.1", 2, 2, "passed"),
        ("1.2", 0, 3, "failed"),
        ("2.1", 0, 3, "failed"),
    ]
    assert "expected   what was said" in said["tests"][1]["output"]
    assert said["tests"][0]["output"] == ""


def test_gradescope_says_what_was_not_handed_in_and_where_the_grader_failed(book):
    students = book.students()
    ben = exporting.gradescope(book, "ben", students["ben"])
    maxi = exporting.gradescope(book, "max", students["max"])

    assert (ben["score"], ben["output"]) == (0, "")
    assert ben["tests"][0]["output"] == "not handed in"
    assert sum(test["max_score"] for test in ben["tests"]) == 8
    assert "no verdict on the work" in maxi["output"]
    assert maxi["extra_data"]["fault"]


# Classroom 50, as its schema `classroom50/result/v1` has it

TEXT = {"type": "string", "minLength": 1}
POINTS = {"type": "integer", "minimum": 0}
MOMENT = {
    "type": "string",
    "pattern": r"^\d{4}-\d{2}-\d{2}T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$",
}
RESULT = {
    "schema": {"const": "classroom50/result/v1"},
    "classroom": TEXT,
    "assignment": TEXT,
    "assignment_type": {"enum": ["individual", "group"]},
    "owner": TEXT,
    "submission": {"type": "string", "pattern": "^submit/"},
    "commit": TEXT,
    "release": TEXT,
    "review": TEXT,
    "datetime": MOMENT,
    "score": POINTS,
    "max-score": POINTS,
    "tests": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["test-name", "passed", "score", "max-score"],
            "properties": {
                "test-name": TEXT,
                "passed": {"type": "boolean"},
                "score": POINTS,
                "max-score": POINTS,
            },
        },
    },
}
CLASSROOM50 = {
    "type": "object",
    "additionalProperties": False,
    "required": list(RESULT),
    "properties": RESULT | {"graded_at": MOMENT},
}


def test_classroom50_gets_what_its_schema_asks_for(book):
    for student, grades in book.students().items():
        said = exporting.classroom50(book, student, grades, {})
        jsonschema.validate(said, CLASSROOM50)
        assert said["score"] <= said["max-score"]
        assert all(test["score"] <= test["max-score"] for test in said["tests"])


def test_classroom50_takes_its_identity_from_the_runner(book):
    runner = {
        "CLASSROOM": "realtime",
        "ASSIGNMENT": "week-1",
        "ASSIGNMENT_TYPE": "group",
        "OWNER": "zoe-h",
        "SUBMISSION_TAG": "submit/2026-11-20T13-00-00Z-abc",
        "COMMIT_URL": "https://example.org/commit",
        "RELEASE_URL": "https://example.org/release",
        "REVIEW_URL": "https://example.org/review",
    }

    said = exporting.classroom50(book, "zoe", book.students()["zoe"], runner)

    jsonschema.validate(said, CLASSROOM50)
    assert set(runner.values()) <= {v for v in said.values() if isinstance(v, str)}
    assert (said["score"], said["max-score"]) == (8, 8)


# HTML


class Page(HTMLParser):
    """Collects the elements, attributes and words of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, text):
        self.words.append(text)


def test_the_page_shows_points_reasons_and_conversations(book):
    page = Page(report.html(book))
    words = " ".join(" ".join(page.words).split())

    assert "zoe 5 3 8" in words
    assert "max fault 3 fault" in words
    assert "ben – – 0" in words
    assert "silence" in words
    assert "not handed in" in words
    assert page.tags.count("svg") == 1
    assert ("class", "bad") in page.attributes  # where it went wrong
    assert page.tags.count("details") == 4


def test_the_page_holds_no_code_of_students_and_loads_nothing(book):
    text = report.html(book)
    page = Page(text)

    assert not {"script", "img", "iframe", "link", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert {value[:2] for name, value in page.attributes if name in ("href", "src")} == {
        "#s"
    }
    assert "default-src 'none'" in text
    assert "<script>" not in text
    hosts = set(re.findall(r"https?://[\w.]+", text))
    assert hosts == {
        "http://www.w3.org"
    }  # the name of SVG's namespace, which is not loaded


# Writing them


@pytest.mark.parametrize("kind", Format)
def test_everything_is_written_from_what_json_kept(book, tmp_path, kind):
    kept, to = tmp_path / "g.json", tmp_path / "deep" / "out"
    exporting.export(book, Format.JSON, kept)

    exported = CliRunner().invoke(commands.app, ["export", kind, str(kept), str(to)])

    assert exported.exit_code == 0, exported.output
    files = sorted(to.iterdir()) if kind in exporting.FOLDERS else [to]
    assert len(files) == (4 if kind in exporting.FOLDERS else 1)
    for file in files:
        assert "\r\n" not in file.read_text("utf-8") or kind is Format.CSV
        if kind in exporting.FOLDERS:
            assert json.loads(file.read_text("utf-8"))["score"] in (0, 2, 5, 8)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"grades": [{}]}', '{"grades": 3}'])
def test_what_is_no_gradebook_is_wrong_usage(tmp_path, text):
    (tmp_path / "g.json").write_text(text, "utf-8")

    exported = CliRunner().invoke(
        commands.app, ["export", "csv", str(tmp_path / "g.json"), str(tmp_path / "g.csv")]
    )

    assert exported.exit_code == 2
    assert not (tmp_path / "g.csv").exists()


def test_a_file_of_a_student_stays_in_its_folder():
    names = ["ana", "ana.b", "../ana", "/etc/ana", ".ana", "a\\b", "a/b", "", "x" * 300]

    files = [exporting.file_name(name) for name in names]

    assert files[:2] == ["ana.json", "ana.b.json"]
    assert len(set(files)) == len(names)
    assert all(re.fullmatch(r"[^./\\][^/\\]{0,120}\.json", file) for file in files)
