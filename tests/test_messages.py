"""What a student reads when a check fails, letter by letter, for each outcome."""

import re

import pytest

from exercises.grader import course
from exercises.grader.checking import run_checks
from exercises.grader.course import Exercise
from exercises.grader.outcomes import Outcome

CHECKS = '''
import pytest

@pytest.mark.task(1, points=2)
async def test_echo(conversation, word):
    """every text comes back"""
    ana = await conversation.join("ana")
    text = word()
    await ana.send(text)
    await ana.expect(text, within=1.5)
    await ana.send("bye")
    await ana.expect_close(1000, within=1.5)
    {last}
'''
ANSWER = """\
import asyncio
import time

from fastapi import FastAPI, WebSocket

app = FastAPI()


@app.websocket("/")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    text = await websocket.receive_text()
    {echo}
    await websocket.receive_text()
    {bye}
    await websocket.close()
"""

# What goes wrong, by its outcome, and what is read then.
READ = [
    (
        {"echo": "await websocket.send_text(text.upper())"},
        """\
✗ task 1 · every text comes back                                 0 of 2 points
  outcome    wrong message
  expected   ana ← "y9jw-xojh"
  got        ana ← "Y9JW-XOJH"
  timeline    0.000 ana · joined /
              0.000 ana → "y9jw-xojh"
              0.000 ana ← "Y9JW-XOJH"                                 ← here
  likely     compare the two messages letter by letter
  again      python -m exercises check tiny --task 1 --seed 7
""",
    ),
    (
        {"echo": "await asyncio.Event().wait()"},
        """\
✗ task 1 · every text comes back                                 0 of 2 points
  outcome    silence
  expected   ana ← "y9jw-xojh"
  got        nothing within 1.5 s; the connection is open
  timeline    0.000 ana · joined /
              0.000 ana → "y9jw-xojh"
              0.000 ana · … still waiting                             ← here
  your code  exercise.py:13  await asyncio.Event().wait()    waits here
  likely     the handler waits for something else, or forgot to answer
  again      python -m exercises check tiny --task 1 --seed 7
""",
    ),
    (
        {"bye": 'await websocket.send_text("see you"); return await websocket.receive()'},
        """\
✗ task 1 · every text comes back                                 0 of 2 points
  outcome    unexpected message
  expected   ana's connection is closed with code 1000
  got        ana ← "see you"
  timeline    0.000 ana · joined /
              0.000 ana → "y9jw-xojh"
              0.000 ana ← "y9jw-xojh"
              0.000 ana → "bye"
              0.000 ana ← "see you"                                   ← here
  likely     the server says more than it was asked
  again      python -m exercises check tiny --task 1 --seed 7
""",
    ),
    (
        {"echo": "return await websocket.close(1011, 'no idea')"},
        """\
✗ task 1 · every text comes back                                 0 of 2 points
  outcome    closed early
  expected   ana ← "y9jw-xojh"
  got        the connection was closed with 1011 "no idea"
  timeline    0.000 ana · joined /
              0.000 ana → "y9jw-xojh"
              0.000 ana · closed 1011 "no idea"                       ← here
  likely     the handler returned: does it receive in a loop?
  again      python -m exercises check tiny --task 1 --seed 7
""",
    ),
    (
        {"echo": "await websocket.send_text(test)"},
        """\
✗ task 1 · every text comes back                                 0 of 2 points
  outcome    server crashed
  expected   ana ← "y9jw-xojh"
  got        the connection ended without a close frame (1006)
  timeline    0.000 ana · joined /
              0.000 ana → "y9jw-xojh"
              0.000 ana · closed 1006, no close frame                 ← here
  your code  exercise.py:13  await websocket.send_text(test)
  log        NameError: name 'test' is not defined
  likely     an exception left the handler; its last lines stand above
  again      python -m exercises check tiny --task 1 --seed 7
""",
    ),
    (
        {"echo": "time.sleep(60)"},
        """\
✗ task 1 · every text comes back                                 0 of 2 points
  outcome    event loop blocked
  expected   ana ← "y9jw-xojh"
  got        nothing within 1.5 s; the connection is open
  timeline    0.000 ana · joined /
              0.000 ana → "y9jw-xojh"
              0.000 ana · … still waiting                             ← here
  your code  exercise.py:13  time.sleep(60)    stops the event loop here
  likely     this call stops the event loop, and with it every client; await
             something that waits without blocking
  again      python -m exercises check tiny --task 1 --seed 7
""",
    ),
    (
        {"last": "1 / 0"},
        """\
! task 1 · every text comes back                                 0 of 2 points
  outcome    fault of the grader
  got        ZeroDivisionError: division by zero
  timeline    0.000 ana · joined /
              0.000 ana → "y9jw-xojh"
              0.000 ana ← "y9jw-xojh"
              0.000 ana → "bye"
              0.000 ana · closed 1000
  log        …
  likely     not your code; please report this output
  again      python -m exercises check tiny --task 1 --seed 7
""",
    ),
]


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Check an answer, and give the text that its student reads."""
    monkeypatch.setattr(course, "EXERCISES", tmp_path)
    exercise = Exercise("tiny")
    exercise.folder.mkdir()

    def read(echo="await websocket.send_text(text)", bye="pass", last="pass"):
        exercise.checks.write_text(CHECKS.format(last=last), "utf-8")
        exercise.answer.write_text(ANSWER.format(echo=echo, bye=bye), "utf-8")
        (result,) = run_checks(exercise, seed=7)
        return result.text() + "\n"

    return read


def outcome(text):
    return text.splitlines()[1].removeprefix("  outcome").strip()


@pytest.mark.parametrize(("wrong", "text"), READ, ids=[outcome(text) for _, text in READ])
def test_a_failure_reads_like_this(read, wrong, text):
    seen = re.sub(r"\b\d+\.\d{3}\b", "0.000", read(**wrong))
    # Where the grader itself broke, Python's own words are left out.
    seen = re.sub(r"(?ms)(^  log        )Traceback .*?(?=^  likely)", r"\1…\n", seen)

    assert seen == text


def test_each_outcome_of_a_server_has_its_text():
    assert {outcome(text) for _, text in READ} == set(Outcome) - {Outcome.PROGRAM_CRASHED}
