"""Every answer gets the outcome it deserves, and none gets points that it did not earn."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from exercises.grader import clients, course, plugin, serving
from exercises.grader.checking import run_checks
from exercises.grader.commands import Exit, exit_code
from exercises.grader.course import Exercise
from exercises.grader.outcomes import (
    LIKELY,
    NOT_ACCEPTED,
    NOT_ANSWERED,
    NOT_AWAITED,
    NOT_BEGUN,
    NOT_STARTED,
    Outcome,
)
from exercises.grader.results import Status

ROOT = Path(__file__).parent.parent
CHECKS = '''
import asyncio
import pytest

@pytest.mark.task(1, points=2)
@pytest.mark.likely(wrong_message="shouting", loop_blocked="sleeping")
async def test_echo(conversation, word):
    """every text comes back"""
    ana = await conversation.join("ana")
    text = word()
    await ana.send(text)
    await ana.expect(text, within=1.5)

@pytest.mark.task(2, points=3)
async def test_end(conversation, server):
    """who says bye is closed with 1000"""
    ana = await conversation.join("ana")
    await ana.send("bye")
    await ana.expect_close(1000, within=1.5)
    await ana.leave()
    await server.expect_quiet()
'''
# The right answer; tests put other lines in place of those at the end.
ANSWER = """\
import asyncio, os, subprocess, sys, threading, time

{top}

async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({{"type": "websocket.accept"}})

    async def say(text):
        await send({{"type": "websocket.send", "text": text}})

    async def close(code=1000, reason=""):
        await send({{"type": "websocket.close", "code": code, "reason": reason}})

    while (text := (await receive()).get("text")) is not None:
        if text == "bye":
            {bye}
            return
        {echo}
"""


@pytest.fixture
def grade(tmp_path, monkeypatch):
    """Check an answer to a small exercise, and give its results."""
    monkeypatch.setattr(course, "EXERCISES", tmp_path)
    exercise = Exercise("tiny")
    exercise.folder.mkdir()

    def grade(
        echo="await say(text)",
        bye="await close()",
        top="",
        checks=CHECKS,
        answer=ANSWER,
        **options,
    ):
        exercise.checks.write_text(checks, "utf-8")
        answer = answer.format(echo=echo, bye=bye, top=textwrap.dedent(top))
        exercise.answer.write_text(answer, "utf-8")
        return run_checks(exercise, **options)

    return grade


def processes_of(folder):
    """The command lines that name this folder."""
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return [line for line in lines if str(folder) in line]


# The seven outcomes


def test_a_right_answer_gets_all_points(grade, tmp_path):
    heard = []

    results = grade(listener=heard.append)

    assert [(r.name, r.task, r.status, r.earned, r.points) for r in results] == [
        ("test_echo", 1, Status.PASSED, 2, 2),
        ("test_end", 2, Status.PASSED, 3, 3),
    ]
    assert [r.sentence for r in results][0] == "every text comes back"
    assert heard == results
    assert exit_code(results) == Exit.PASSED
    assert processes_of(tmp_path) == []


def test_a_wrong_message_is_shown_beside_the_right_one(grade):
    first, second = grade(echo="await say(text.upper())", seed=7)

    assert (first.status, first.outcome) == (Status.FAILED, "wrong message")
    assert first.got == first.expected.upper().replace("ANA", "ana")
    assert first.timeline.splitlines()[-1].endswith("← here")
    assert [event["here"] for event in first.events] == [False, False, True]
    assert (first.likely, first.earned, first.line) == ("shouting", 0, "")
    assert first.again == "python -m exercises check tiny --task 1 --seed 7"
    assert (second.status, second.got) == (Status.SKIPPED, "first task 1")


def test_silence_names_the_line_where_the_handler_waits(grade):
    (first,) = grade(echo="await asyncio.Event().wait()", task=1)

    assert first.outcome == "silence"
    assert first.got == "nothing within 1.5 s; the connection is open"
    assert "await asyncio.Event().wait()    waits here" in first.line
    assert first.likely == LIKELY[Outcome.SILENCE]


def test_the_headers_that_a_client_brought_stand_in_its_timeline(grade):
    brings = 'join("ana", headers={"Origin": "http://ours.example"})'
    checks = CHECKS.replace('join("ana")', brings)

    (first,) = grade(echo="await say('no')", checks=checks, task=1)

    line = first.timeline.splitlines()[0]
    assert line.endswith("ana · joined / (Origin: http://ours.example)")


def test_an_unexpected_message_is_shown(grade):
    first, second = grade(bye="await say('see you'); await close()")

    assert first.status == Status.PASSED
    assert second.outcome == "unexpected message"
    assert (second.expected, second.got) == (
        "ana's connection is closed with code 1000",
        'ana ← "see you"',
    )


def test_closed_early_says_how(grade):
    (first,) = grade(echo="await close(4000); return", task=1)

    assert first.outcome == "closed early"
    assert first.got == 'the connection was closed with 4000 ""'


def test_a_crash_names_the_line_and_the_error(grade):
    (first,) = grade(echo="raise KeyError(text)  # crashes", task=1)

    assert first.outcome == "server crashed"
    assert first.line.endswith("raise KeyError(text)  # crashes")
    assert first.log.startswith("KeyError: ")


def test_a_server_that_exits_has_crashed_with_its_exit_code(grade):
    (first,) = grade(echo="os._exit(3)", task=1)

    assert first.outcome == "server crashed"
    assert first.got.endswith("exit code 3")


def test_a_server_that_exits_when_nobody_waits_has_crashed_too(grade):
    (second,) = grade(bye="await close(); os._exit(0)", task=2)

    assert second.outcome == "server crashed"
    assert second.earned == 0


def test_a_server_that_exits_in_the_handshake_has_crashed(grade):
    # What follows of the right answer becomes a text that nobody reads.
    exits = "    if scope['type'] == 'websocket': os._exit(3)"
    top = f"async def app(scope, receive, send):\n{exits}\nright = '''"

    (first,) = grade(top=top, echo="pass\n'''", task=1)

    assert first.outcome == "server crashed"
    assert first.got.endswith("exit code 3")


def test_a_file_that_does_not_import_has_crashed_in_its_own_words(grade):
    first, second = grade(top="import no_such_module")

    assert first.outcome == "server crashed"
    assert (first.expected, first.got) == (
        "the server starts",
        "exercise.py did not start.",
    )
    assert "No module named 'no_such_module'" in first.log
    assert second.status == Status.SKIPPED


@pytest.mark.parametrize("answer", ["app = (", "no_app = None"])
def test_a_file_that_does_not_start_is_told_what_the_server_looks_for(grade, answer):
    checks = CHECKS.replace("loop_blocked=", "server_crashed=")

    first, _ = grade(answer=answer, checks=checks)

    assert first.outcome == "server crashed"
    assert first.likely.startswith(NOT_STARTED)
    assert first.likely.endswith("a variable called `app`")


def test_a_file_that_takes_too_much_memory_is_ended_and_told_so(grade):
    (first, _) = grade(top="kept = [bytearray(2**20) for _ in range(2000)]")

    assert first.outcome == "server crashed"
    assert first.got == "exercise.py was ended: it used more than 768 MiB of memory."


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
def test_a_file_that_starts_too_many_processes_is_ended_and_told_so(grade):
    starts_two = ["sh", "-c", "sleep 60 & sleep 60 & wait"]
    start = f"[subprocess.Popen({starts_two}) for _ in range(20)]"
    (first, _) = grade(top=f"import subprocess, time\nkept = {start}\ntime.sleep(60)")

    assert first.outcome == "server crashed"
    assert first.got == "exercise.py was ended: it used more than 50 processes."


def test_a_blocked_loop_names_the_line_that_blocks(grade):
    (first,) = grade(echo="time.sleep(60)  # blocks", task=1)

    assert first.outcome == "event loop blocked"
    assert "time.sleep(60)  # blocks    stops the event loop here" in first.line
    assert first.likely == "sleeping"


# What is likely


FASTAPI = """\
from fastapi import FastAPI, WebSocket
app = FastAPI()
{top}
"""
NOBODY_ACCEPTS = {
    "another_path": """
        @app.websocket("/ws")
        async def echo(websocket: WebSocket):
            await websocket.accept()
    """,
    "a_route_for_http": """
        @app.get("/")
        async def echo(websocket: WebSocket):
            await websocket.accept()
    """,
    "a_handler_that_returns": """
        @app.websocket("/")
        async def echo(websocket: WebSocket):
            return
    """,
}


@pytest.mark.parametrize("name", NOBODY_ACCEPTS)
def test_where_nobody_accepts_that_comes_before_the_advice_of_the_check(grade, name):
    checks = CHECKS.replace("loop_blocked=", "closed_early=")

    first, _ = grade(answer=FASTAPI, top=NOBODY_ACCEPTS[name], checks=checks)
    (second,) = grade(answer=FASTAPI, top=NOBODY_ACCEPTS[name], checks=checks, task=2)

    assert first.outcome == second.outcome == "closed early"
    assert first.likely == f"{NOT_ACCEPTED} · sleeping"
    assert second.likely == NOT_ACCEPTED


def test_a_handler_that_waits_before_it_accepts_is_told_so(grade, monkeypatch):
    monkeypatch.setattr(clients, "OPEN_DEADLINE", 0.5)
    wait = "await asyncio.Event().wait()"
    waits = ANSWER.replace("await send({{", f"{wait}\n    await send({{{{", 1)

    (first,) = grade(answer=waits, task=1)

    assert first.outcome == "silence"
    assert first.line.endswith(f"{wait}    waits here")
    assert first.likely == NOT_ANSWERED


def test_what_stops_a_handshake_is_told_without_a_word_about_accepting(grade, monkeypatch):
    monkeypatch.setattr(clients, "OPEN_DEADLINE", 0.5)
    crashes = ANSWER.replace("await send({{", "1 / 0\n    await send({{", 1)
    blocks = ANSWER.replace("await send({{", "time.sleep(60)\n    await send({{", 1)

    (crashed,) = grade(answer=crashes, task=1)
    (blocked,) = grade(answer=blocks, task=1)

    assert (crashed.outcome, crashed.likely) == (
        "server crashed",
        LIKELY[Outcome.SERVER_CRASHED],
    )
    assert (blocked.outcome, blocked.likely) == ("event loop blocked", "sleeping")


@pytest.mark.parametrize(
    "echo",
    [
        "await close(1011, 'task 1 is still to do'); return",
        'raise NotImplementedError("task 1 is still to do")',
    ],
)
def test_a_stub_is_told_that_it_is_one_whatever_the_check_advises(grade, echo):
    checks = CHECKS.replace("(wrong_", "(closed_early='looping', server_crashed='', wrong_")

    (first,) = grade(echo=echo, checks=checks, task=1)

    assert first.likely == NOT_BEGUN


@pytest.mark.parametrize(
    ("echo", "outcome", "advice"),
    [
        ("say(text)", "silence", NOT_AWAITED),
        ("await say(str(receive()))", "wrong message", f"{NOT_AWAITED} · shouting"),
        ("say(text); raise KeyError", "server crashed", NOT_AWAITED),
    ],
)
def test_a_forgotten_await_is_named_with_its_line_of_the_log(grade, echo, outcome, advice):
    (first,) = grade(echo=echo, task=1)

    assert (first.outcome, first.likely) == (outcome, advice)
    warning = first.log.splitlines()[-1]
    assert warning.startswith("exercise.py:")
    assert warning.endswith(" was never awaited")


def test_a_crash_where_a_refusal_is_expected_names_the_line_and_the_error(grade):
    refusal = """
        await conversation.expect_refusal("eve", "/")
    ana"""
    checks = CHECKS.replace("ana", refusal.strip(), 1)
    crashes = ANSWER.replace("await send({{", "1 / 0\n    await send({{", 1)

    (first,) = grade(answer=crashes, checks=checks, task=1)

    assert first.outcome == "server crashed"
    assert first.got.endswith("refused with HTTP 500")
    assert first.line.endswith("1 / 0")
    assert first.log == "ZeroDivisionError: division by zero"


# Faults of the grader


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("assert text == 'x'", "AssertionError"),
        ("raise KeyError('x')", "KeyError: 'x'"),
        ("raise TimeoutError", "TimeoutError"),
        ("ana.heard('never')", "heard"),
    ],
)
def test_a_check_that_breaks_is_a_fault_of_the_grader(grade, statement, words):
    checks = CHECKS.replace("await ana.send(text)", statement)

    results = grade(checks=checks, task=1)

    assert (results[0].status, results[0].outcome) == (Status.FAULT, "fault of the grader")
    assert words in results[0].got + results[0].log
    assert exit_code(results) == Exit.FAULT


def test_what_a_check_leaves_to_the_garbage_collector_is_no_fault(grade):
    leaves = "import socket; socket.socket().bind(('127.0.0.1', 0))"

    results = grade(checks=CHECKS.replace("text = word()", f"{leaves}; text = word()"))

    assert exit_code(results) == Exit.PASSED


@pytest.mark.parametrize("skips", ["pytest.skip('why')", "pytest.xfail('why')"])
def test_a_check_that_skips_itself_is_a_fault_of_the_grader(grade, skips):
    first, second = results = grade(checks=CHECKS.replace("await ana.send(text)", skips))

    assert (first.status, first.outcome) == (Status.FAULT, "fault of the grader")
    assert first.got.endswith(": why")
    assert (second.status, second.got) == (Status.SKIPPED, "first task 1")
    assert exit_code(results) == Exit.FAULT


@pytest.mark.parametrize("mark", ["skip(reason='why')", "xfail(run=False, reason='why')"])
def test_a_check_that_is_marked_to_be_skipped_is_a_fault_of_the_grader(grade, mark):
    old = "@pytest.mark.task(2"

    first, second = grade(checks=CHECKS.replace(old, f"@pytest.mark.{mark}\n{old}"))

    assert (first.status, second.status) == (Status.PASSED, Status.FAULT)


@pytest.mark.parametrize("statement", ["raise SystemExit(0)", "pytest.exit('', 0)"])
def test_a_check_that_would_end_the_grader_costs_the_others_nothing(grade, statement):
    checks = CHECKS.replace("task(2,", "task(1,")

    broken, whole = results = grade(checks=checks.replace("text = word()", statement))

    assert (broken.status, broken.outcome) == (Status.FAULT, "fault of the grader")
    assert broken.got.startswith("RuntimeError: the check raised ")
    assert (whole.status, whole.earned) == (Status.PASSED, 3)
    assert exit_code(results) == Exit.FAULT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import asyncio", "import no_such_module"),
        ("import asyncio", "def :"),
        ("task(1, points=2)", "task(1)"),
        ("task(1, points=2)", "tusk(1, points=2)"),
        ("(conversation, word)", "(conversation, no_such_fixture)"),
        ("async def test", "async def no_test"),
        ("import asyncio", "import pytest; pytest.exit('', 0)"),
        ("import asyncio", "import pytest; pytest.skip('', allow_module_level=True)"),
    ],
)
def test_checks_that_cannot_run_are_a_fault_of_the_grader(grade, old, new):
    results = grade(checks=CHECKS.replace(old, new))

    assert exit_code(results) == Exit.FAULT
    faults = [result for result in results if result.status == Status.FAULT]
    assert faults[0].likely == LIKELY[Outcome.GRADER_FAULT]


# Deadlines, tasks and seeds


def test_a_check_that_does_not_end_is_ended_at_its_deadline(grade, monkeypatch):
    monkeypatch.setattr(plugin, "CHECK_DEADLINE", 1.0)
    checks = CHECKS.replace(
        "await ana.expect(text, within=1.5)",
        """
    while True:
        await ana.receive()""",
    )
    echo = "\n        while True: await say(text); await asyncio.sleep(0.01)"

    (first,) = grade(echo=echo, checks=checks, task=1)

    assert (first.status, first.outcome) == (Status.FAILED, "silence")
    assert first.expected == "the whole conversation takes less than 1 s"


def test_a_file_that_never_ends_its_import_is_ended_at_the_deadline(
    grade, monkeypatch, tmp_path
):
    monkeypatch.setattr(serving, "START_DEADLINE", 0.5)

    first, second = grade(top="while True: pass")

    assert first.outcome == "server crashed"
    assert first.got == "exercise.py was not ready after 0.5 s."
    assert second.status == Status.SKIPPED
    assert processes_of(tmp_path) == []


def test_tasks_are_checked_in_order_whatever_the_order_of_the_checks(grade):
    checks = CHECKS.replace("task(1,", "task(3,")

    results = grade(echo="await say('wrong')", checks=checks)

    statuses = [(result.task, result.status) for result in results]
    assert statuses == [(2, Status.PASSED), (3, Status.FAILED)]


def test_other_checks_of_a_failed_task_still_run(grade):
    results = grade(echo="pass", checks=CHECKS.replace("task(2,", "task(1,"))

    assert [result.status for result in results] == [Status.FAILED, Status.PASSED]
    assert sum(result.earned for result in results) == 3


def test_one_task_alone_is_checked_though_another_would_fail(grade):
    results = grade(echo="await say('wrong')", task=2)

    assert [(result.task, result.status) for result in results] == [(2, Status.PASSED)]


def test_a_seed_repeats_the_texts_and_another_gives_others(grade):
    texts = [grade("await say('no')", seed=seed, task=1)[0].expected for seed in (1, 1, 2)]

    assert texts[0] == texts[1] != texts[2]


# Hostile answers


@pytest.mark.parametrize("name", ["conftest.py", "pytest.ini", "sitecustomize.py"])
def test_a_file_beside_the_answer_changes_nothing(grade, tmp_path, name):
    mark = tmp_path / "was run"
    code = f"open({str(mark)!r}, 'w').close()\nraise ImportError"
    text = "[pytest]\naddopts = --collect-only\n" if name.endswith("ini") else code
    for folder in (tmp_path, tmp_path / "tiny"):
        (folder / name).write_text(text, "utf-8")

    first, second = grade(echo="await say('wrong')")

    assert (first.status, second.status) == (Status.FAILED, Status.SKIPPED)
    assert not mark.exists()


SOLUTION = Exercise("echo_server").solution
STUB = "async def app(scope, receive, send): pass"
EARLY = """
from fastapi import FastAPI, WebSocket
app = FastAPI()

@app.websocket("/ws/parrot")
async def parrot(websocket: WebSocket):
    await websocket.accept()
    for _ in range(1000):
        await websocket.send_text("Polly: ")
    await websocket.close(1003, "text only")
"""
HOSTILE = {
    "exits_with_0": "raise SystemExit(0)",
    "exits_at_exit": f"{STUB}import atexit, os; atexit.register(os._exit, 0)",
    "patches_pytest": f"""{STUB}
import _pytest.runner, builtins, pytest, sys
pytest.main = lambda *_: 0
_pytest.runner.runtestprotocol = lambda *_, **__: []
sys.exit = builtins.exit = lambda *_: None
""",
    "prints_results": f"""{STUB}
import os
for number in range(1, 9):
    try:
        os.write(number, b'{{"seed": 1, "results": []}}\\n1 passed\\n')
    except OSError:
        pass
""",
    "answers_before_it_is_asked": EARLY,
    "has_threads_that_do_not_end": f"""{STUB}
import threading
for _ in range(20):
    threading.Thread(target=threading.Event().wait).start()
""",
    "listens_on_another_port": f"""{STUB}
import asyncio, threading, uvicorn
right = lambda: uvicorn.run(parrot, port=0)
async def parrot(scope, receive, send):
    await send({{"type": "websocket.accept"}})
    while True:
        message = await receive()
        await send({{"type": "websocket.send", "text": "Polly: " + message["text"]}})
threading.Thread(target=right, daemon=True).start()
""",
    "takes_all_memory": f"""{STUB}
kept = [bytearray(2**20) for _ in range(2000)]
""",
    "looks_for_the_right_answer": f"""{STUB}
import gc, os, pathlib, sys
found = [name for name in os.environ if "PYTEST" in name or "SEED" in name]
found += [module for module in sys.modules if module.startswith(("pytest", "exercises"))]
if found:
    exec(pathlib.Path({str(SOLUTION)!r}).read_text())
""",
    "leaves_children_behind": f"""{STUB}
import subprocess, sys
for apart in (True, False):
    code = "import time; time.sleep(600)"
    command = [sys.executable, "-c", code, __file__]
    subprocess.Popen(command, start_new_session=apart)
""",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_gets_no_point_and_leaves_no_process(tmp_path, name):
    answer = tmp_path / "exercise.py"
    answer.write_text(HOSTILE[name], "utf-8")
    command = [sys.executable, "-m", "exercises", "check", "echo_server", "--json"]
    command += ["--task", "1", "--answer", str(answer)]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)

    assert run.returncode == Exit.FAILED, run.stderr.decode()
    results = json.loads(run.stdout)["results"]
    assert {result["status"] for result in results} <= {"failed", "skipped"}
    assert sum(result["earned"] for result in results) == 0
    assert processes_of(tmp_path) == []
