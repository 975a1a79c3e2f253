"""Grades in the formats that others read: CSV, JSON, JUnit, Gradescope, Classroom 50.

Points are integers everywhere. Where a fault of the grader left the points unknown, no
format says a number that could be taken for a verdict, if it has another way to put it.
"""

import csv
import hashlib
import io
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from . import report
from .grading import Grade, Gradebook
from .results import Result, Status

FAULT = "fault"
FAULT_TEXT = (
    "The grader failed, so this is no verdict on the work and costs nothing. "
    "It has to be graded again."
)
# What XML 1.0 cannot hold, not even escaped.
UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Format(StrEnum):
    """What grades can be written as."""

    JSON = "json"
    CSV = "csv"
    JUNIT = "junit"
    HTML = "html"
    GRADESCOPE = "gradescope"
    CLASSROOM50 = "classroom50"


FOLDERS = {Format.GRADESCOPE, Format.CLASSROOM50}  # one file a student


def export(book: Gradebook, kind: Format, to: Path) -> None:
    """Write grades to a file, or to a folder for the formats with a file a student."""
    if kind in FOLDERS:
        to.mkdir(parents=True, exist_ok=True)
        one = gradescope if kind is Format.GRADESCOPE else classroom50
        for student, grades in book.students().items():
            text = json.dumps(one(book, student, grades), indent=1)
            (to / file_name(student)).write_text(text, encoding="utf-8", newline="\n")
    else:
        text = TEXTS[kind](book)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8", errors="replace", newline="")


def file_name(student: str) -> str:
    """A file of the student's own, whatever the name is made of."""
    safe = re.sub(r"[^\w @.+-]|^[ .]", "_", student)[:100]
    if safe != student or not safe:
        safe += "-" + hashlib.sha256(student.encode(errors="replace")).hexdigest()[:8]
    return f"{safe}.json"


# CSV


def csv_text(book: Gradebook) -> str:
    """A line a student, a column a lesson."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["student", *book.points, "total", "of", "date", "version", "seed"])
    for student, grades in book.students().items():
        earned = {g.stem: FAULT if g.fault else g.earned for g in grades}
        total = FAULT if FAULT in earned.values() else sum(g.earned for g in grades)
        row = [harmless(student), *(earned.get(stem, "") for stem in book.points), total]
        writer.writerow([*row, book.of, book.date, book.version, book.seed])
    return text.getvalue()


def harmless(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


# JUnit


def junit_text(book: Gradebook) -> str:
    """A suite a student, a case a check; what was not handed in is a case that failed."""
    root = ElementTree.Element("testsuites")
    for student, grades in book.students().items():
        suite = ElementTree.SubElement(root, "testsuite", name=fit(student))
        suite.set("timestamp", book.date.removesuffix("Z"))
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in {"version": book.version, "seed": str(book.seed)}.items():
            ElementTree.SubElement(properties, "property", name=name, value=value)
        for grade in grades:
            add_cases(suite, grade)
        count(suite)
    count(root)
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def add_cases(suite: ElementTree.Element, grade: Grade) -> None:
    if not grade.results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=grade.stem, name=grade.stem, time="0"
        )
        ElementTree.SubElement(case, "failure", message=fit(grade.note))
    for result in grade.results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=grade.stem, name=fit(named(result))
        )
        case.set("time", f"{result.seconds:.3f}")
        add_outcome(case, result)


def add_outcome(case: ElementTree.Element, result: Result) -> None:
    tags = {Status.FAILED: "failure", Status.SKIPPED: "skipped", Status.FAULT: "error"}
    if tag := tags.get(result.status):
        message = f"{result.outcome}: {result.got}" if result.outcome else result.got
        child = ElementTree.SubElement(case, tag, message=fit(message))
        child.text = fit(result.text()) if tag != "skipped" else None


def count(element: ElementTree.Element) -> None:
    """Say how many cases there are, and how they ended."""
    tags = {"failures": "failure", "errors": "error"}
    if element.tag == "testsuite":
        tags["skipped"] = "skipped"
    element.set("tests", str(len(list(element.iter("testcase")))))
    for name, tag in tags.items():
        element.set(name, str(len(list(element.iter(tag)))))
    seconds = sum(float(case.get("time", 0)) for case in element.iter("testcase"))
    element.set("time", f"{seconds:.3f}")


def named(result: Result) -> str:
    """A check as one line, without the points."""
    return f"task {result.task} · {result.sentence}"


def fit(text: str) -> str:
    """Text without what XML cannot hold."""
    return UNFIT.sub("\ufffd", text)


TEXTS: dict[Format, Callable[[Gradebook], str]] = {
    Format.JSON: Gradebook.write,
    Format.CSV: csv_text,
    Format.JUNIT: junit_text,
    Format.HTML: report.html,
}


# Gradescope


def gradescope(book: Gradebook, student: str, grades: list[Grade]) -> dict[str, Any]:
    """The `results.json` of Gradescope for one student.

    Every test is visible: if one is hidden, the student cannot see the total either.
    """
    fault = any(grade.fault for grade in grades)
    return {
        "score": sum(grade.earned for grade in grades),
        "execution_time": round(sum(grade.seconds for grade in grades), 3),
        "output": FAULT_TEXT if fault else "",
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [
            test
            for number, grade in enumerate(grades, start=1)
            for test in gradescope_tests(number, grade)
        ],
        "extra_data": {
            "student": student,
            "version": book.version,
            "seed": book.seed,
            "date": book.date,
            "fault": fault,
        },
    }


def gradescope_tests(number: int, grade: Grade) -> list[dict[str, Any]]:
    if not grade.results:
        return [gradescope_test(grade, f"{number}", grade.stem, 0, grade.total, grade.note)]
    return [
        gradescope_test(
            grade,
            f"{number}.{place}",
            f"{grade.stem} · {named(result)}",
            result.earned,
            result.points,
            "" if result.status is Status.PASSED else result.text(),
            passed=result.status is Status.PASSED,
        )
        for place, result in enumerate(grade.results, start=1)
    ]


def gradescope_test(
    grade: Grade,
    number: str,
    name: str,
    score: int,
    of: int,
    output: str,
    *,
    passed: bool = False,
) -> dict[str, Any]:
    return {
        "score": score,
        "max_score": of,
        "status": "passed" if passed else "failed",
        "name": name,
        "name_format": "text",
        "number": number,
        "output": output.replace("\r\n", "\n").replace("\r", "\n"),
        "output_format": "text",
        "tags": [grade.stem],
        "visibility": "visible",
    }


# Classroom 50

# What its runner says of a submission, in the environment of the grader. The fallback is
# for grades that were found elsewhere: they are complete, but belong to no repository.
IDENTITY = {
    "classroom": ("CLASSROOM", "classroom"),
    "assignment": ("ASSIGNMENT", "exercises"),
    "assignment_type": ("ASSIGNMENT_TYPE", "individual"),
    "submission": ("SUBMISSION_TAG", "submit/{date}"),
    "commit": ("COMMIT_URL", "unknown"),
    "release": ("RELEASE_URL", "unknown"),
    "review": ("REVIEW_URL", "unknown"),
}


def classroom50(
    book: Gradebook,
    student: str,
    grades: list[Grade],
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """The `result.json` of Classroom 50 for one student."""
    said = {
        name: environment.get(variable) or fallback.format(date=book.date)
        for name, (variable, fallback) in IDENTITY.items()
    }
    tests = [test for grade in grades for test in classroom50_tests(grade)]
    return {
        "schema": "classroom50/result/v1",
        **said,
        "owner": environment.get("OWNER") or environment.get("USERNAME") or student,
        "datetime": book.date,
        "graded_at": book.date,
        "score": sum(test["score"] for test in tests),
        "max-score": sum(test["max-score"] for test in tests),
        "tests": tests,
    }


def classroom50_tests(grade: Grade) -> list[dict[str, Any]]:
    if not grade.results:
        rows = [(grade.stem, Status.FAILED, 0, grade.total, grade.note)]
    else:
        rows = [
            (f"{grade.stem} · {named(r)}", r.status, r.earned, r.points, r.text())
            for r in grade.results
        ]
    return [
        {
            "test-name": name,
            "passed": status is Status.PASSED,
            "score": score,
            "max-score": of,
            **({} if status is Status.PASSED else {"output": output}),
        }
        for name, status, score, of, output in rows
    ]
