"""Grades as one HTML page that a person can read: who has what, and why not more.

Names and messages of students may be hostile: everything is escaped, and a policy forbids
the page to run a script or to load anything.
"""

from collections.abc import Iterable
from html import escape
from typing import Any

from .grading import Grade, Gradebook
from .results import Result
from .timeline import Event, Kind, Timeline

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent);
  --all: light-dark(#d9f0dd, #1d3b25); --some: light-dark(#fdf0cd, #413613);
  --none: light-dark(#fbdcda, #46211f); --fault: light-dark(#eadcf7, #38254a); }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto;
  padding: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border: 1px solid var(--line); text-align: right; }
thead th { vertical-align: bottom; }
tbody th, tfoot th, thead th:first-child { text-align: left; font-weight: 600; }
.all { background: var(--all); } .some { background: var(--some); }
.none { background: var(--none); } .fault { background: var(--fault); }
details { border-top: 1px solid var(--line); }
summary { padding: .4rem 0; cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
h3 { margin: 1rem 0 .25rem; }
article { margin: 0 0 1.5rem; break-inside: avoid; }
dl { display: grid; grid-template-columns: 6rem minmax(0, 1fr); gap: .1rem .8rem;
  margin: .3rem 0; }
dt { opacity: .7; } dd { margin: 0; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .875rem; }
svg { border: 1px solid var(--line); border-radius: 6px; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; } dd { margin: 0 0 .3rem; } }
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  td, th { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  svg { max-width: 100%; height: auto; }
  details:not([open]) > * { display: block; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
}
"""


def html(book: Gradebook) -> str:
    """The whole page."""
    students = book.students()
    people = "1 student" if len(students) == 1 else f"{len(students)} students"
    facts = f"{book.date} · seed {book.seed} · version {escape(book.version)}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>Grades</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            "<h1>Grades</h1>",
            f"<p>{people} · {book.of} points · {facts}</p>",
            '<p class="fault">The grader failed where it says “fault”: those points are not'
            " known, and have to be graded again.</p>"
            if book.fault
            else "",
            table(book, students),
            "<h2>What did not pass</h2>",
            *(
                one_student(number, name, grades)
                for number, (name, grades) in enumerate(students.items())
            ),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def table(book: Gradebook, students: dict[str, list[Grade]]) -> str:
    """A row a student, a column a lesson."""
    heads = [
        f'<th scope="col">{escape(stem).replace("_", "_<wbr>")}<br>{points}</th>'
        for stem, points in book.points.items()
    ]
    rows = []
    for number, (name, grades) in enumerate(students.items()):
        cells = {grade.stem: cell(grade) for grade in grades}
        rows.append(
            f'<tr><th scope="row"><a href="#s{number}">{escape(name)}</a></th>'
            + "".join(cells.get(stem, "<td></td>") for stem in book.points)
            + f"<td><strong>{total(grades)}</strong></td></tr>"
        )
    means = [mean([g for g in book.grades if g.stem == stem]) for stem in book.points]
    return "\n".join(
        [
            '<div class="wide"><table>',
            f'<thead><tr><th scope="col">student</th>{"".join(heads)}'
            f'<th scope="col">total<br>{book.of}</th></tr></thead>',
            "<tbody>",
            *rows,
            "</tbody>",
            f'<tfoot><tr><th scope="row">mean</th>{"".join(means)}<td></td></tr></tfoot>',
            "</table></div>",
        ]
    )


def look(grade: Grade) -> str:
    """The class of a grade's cell; the number in it says the same without colour."""
    if grade.fault:
        return "fault"
    if grade.earned == grade.total:
        return "all"
    return "some" if grade.earned else "none" if grade.answer else ""


def cell(grade: Grade) -> str:
    shown = "fault" if grade.fault else str(grade.earned) if grade.answer else "–"
    note = f' title="{escape(grade.note)}"' if grade.note else ""
    return f'<td class="{look(grade)}"{note}>{shown}</td>'


def total(grades: list[Grade]) -> str:
    if any(grade.fault for grade in grades):
        return "fault"
    return str(sum(grade.earned for grade in grades))


def mean(grades: list[Grade]) -> str:
    known = [grade.earned for grade in grades if not grade.fault]
    return f"<td>{sum(known) / len(known):.1f}</td>" if known else "<td></td>"


def one_student(number: int, name: str, grades: list[Grade]) -> str:
    """The reasons for the points that a student did not get."""
    of = sum(grade.total for grade in grades)
    parts = [one_grade(grade) for grade in grades if grade.lost]
    for note in dict.fromkeys(grade.note for grade in grades if grade.note):
        stems = ", ".join(grade.stem for grade in grades if grade.note == note)
        parts.append(f"<p>{escape(stems)}: {escape(note)}</p>")
    return "\n".join(
        [
            f'<details id="s{number}">',
            f"<summary>{escape(name)}: {total(grades)} of {of}</summary>",
            *(parts or ["<p>Everything passed.</p>"]),
            "</details>",
        ]
    )


def one_grade(grade: Grade) -> str:
    points = "fault" if grade.fault else str(grade.earned)
    return "\n".join(
        [
            f"<h3>{escape(grade.stem)}: {points} of {grade.total}</h3>",
            *map(one_result, grade.lost),
        ]
    )


def one_result(result: Result) -> str:
    """A check that did not pass: what was said, and the conversation as a diagram."""
    parts = [
        f"<dt>{escape(label)}</dt><dd><pre>{escape(text)}</pre></dd>"
        for label, text in result.parts()
        if not (label == "timeline" and result.events)
    ]
    points = f"{result.earned} of {result.points}"
    return "\n".join(
        [
            "<article>",
            f"<p><strong>task {result.task} · {escape(result.sentence)}</strong>"
            f" ({points})</p>",
            f"<dl>{''.join(parts)}</dl>",
            f'<div class="wide">{diagram(result.events)}</div>' if result.events else "",
            "</article>",
        ]
    )


def diagram(events: Iterable[dict[str, Any]]) -> str:
    """The conversation as a sequence diagram, drawn again from what was recorded."""
    drawn, here = [], None
    for data in events:
        event = Event(data["at"], data["who"], Kind(data["kind"]), data["text"])
        drawn.append(event)
        here = event if data.get("here") else here
    return Timeline(drawn).svg(here=here, times=True)
