"""A student's program runs apart, tells what it does, and ends with all that it started."""

import sys
import textwrap
import threading

import psutil
import pytest

from exercises.grader import programs, serving
from exercises.grader.outcomes import NOT_STARTED, Failure, Outcome
from exercises.grader.programs import Program
from exercises.grader.serving import LOG_LIMIT, until
from exercises.grader.timeline import Timeline

URL = "ws://127.0.0.1:1/ws"
PATIENCE = 10.0  # seconds for what comes at once on a machine that has time
PROGRAM = """\
import asyncio, json, os, subprocess, sys, time

{top}

async def work(url{tools}):
{body}
"""

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


@pytest.fixture
def program(tmp_path):
    """Make a program of a body; the tools that it names are given to it."""

    def make(body="return", top="", gives=(), **options):
        file = tmp_path / "exercise.py"
        tools = "".join(f", {tool}" for tool in gives)
        body = textwrap.indent(textwrap.dedent(body).strip(), " " * 4)
        text = PROGRAM.format(top=textwrap.dedent(top), tools=tools, body=body)
        file.write_text(text, "utf-8")
        return Program(file, "work", URL, gives=gives, limited=True, **options)

    return make


async def failure(waiting):
    """What waiting for something fails with."""
    with pytest.raises(Failure) as failed:
        await waiting
    return failed.value


async def is_gone(pid):
    """Wait until a process has ended; end it if it does not."""

    def gone():
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    if await until(gone, PATIENCE):
        return True
    psutil.Process(pid).kill()
    return False


# How it ends


async def test_a_function_that_returns_has_returned(program):
    with program() as running:
        await running.starts()
        ending = await running.ends(PATIENCE)

    assert (ending.error, ending.place, str(ending)) == ("", None, "it returned")


async def test_a_program_that_has_ended_before_it_is_heard_has_started(
    program, monkeypatch
):
    read, awaited = Program._read_replies, threading.Event()

    class Reader(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            awaited.set()
            super().join(timeout)

    def read_late(running: Program) -> None:
        """Read when somebody waits for that, as a thread may on a busy machine."""
        awaited.wait(PATIENCE)
        read(running)

    monkeypatch.setattr(threading, "Thread", Reader)
    monkeypatch.setattr(Program, "_read_replies", read_late)
    with program() as running:
        await running.starts()
        ending = await running.ends(PATIENCE)

    assert str(ending) == "it returned"


async def test_what_a_function_raises_is_told_with_its_line(program):
    body = "async with asyncio.TaskGroup() as group: group.create_task(fail())"
    top = "async def fail(): assert 1 == 2, 'unlike'  # fails"

    with program(body, top) as running:
        ending = await running.ends(PATIENCE)

    assert ending.error == "AssertionError: unlike"
    assert ending.place.code.endswith("# fails")


async def test_a_function_that_is_not_asynchronous_runs_too(program):
    with program(top="def other(url): raise KeyError(url)\n") as running:
        pass
    with Program(running.file, "other", URL) as running:
        ending = await running.ends(PATIENCE)

    assert ending.error == f"KeyError: '{URL}'"


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def :", "SyntaxError"),
        ("raise SystemExit(0)", ""),
        ("import os; os._exit(3)", ""),
    ],
)
async def test_a_file_that_cannot_be_imported_says_why(program, top, words):
    with program(top=top) as running:
        failed = await failure(running.starts())

    assert failed.outcome is Outcome.PROGRAM_CRASHED
    assert failed.got == "exercise.py did not start."
    assert words in failed.log
    assert failed.likely == NOT_STARTED


async def test_a_missing_function_is_named(program):
    with program() as running:
        pass
    with Program(running.file, "play", URL) as running:
        failed = await failure(running.starts())

    assert "has a function play" in failed.expected
    assert "has no attribute 'play'" in failed.log


async def test_a_file_whose_import_never_ends_is_given_up(program, monkeypatch):
    monkeypatch.setattr(serving, "START_DEADLINE", 0.5)

    with program(top="while True: pass") as running:
        failed = await failure(running.starts())

    assert failed.got == "exercise.py was not ready after 0.5 s."
    assert not psutil.pid_exists(running.pid)


# What it says


async def test_a_program_shows_draws_and_sleeps(program):
    body = """
        show({"at": url})
        await sleep(4 * draw())
        show("awake")
    """
    timeline = Timeline()

    with program(body, gives=["show", "sleep", "draw"], timeline=timeline) as running:
        wait = await running.sleeps(PATIENCE)
        assert running.shown == [{"at": URL}]
        assert wait.seconds == 4 * wait.drawn[0] != 0
        running.wake()
        await running.ends(PATIENCE)

    assert running.shown == [{"at": URL}, "awake"]
    texts = [event.text for event in timeline]
    assert texts[1:4] == [
        f"sleeps {wait.seconds:.3f} s",
        "… that time passes",
        'shows "awake"',
    ]


async def test_a_seed_repeats_what_is_drawn(program):
    drawn = []
    for seed in "aab":
        with program("await sleep(draw())", gives=["draw", "sleep"], seed=seed) as run:
            drawn.append((await run.sleeps(PATIENCE)).drawn)

    assert drawn[0] == drawn[1] != drawn[2]


async def test_a_sleep_that_was_cancelled_is_not_the_one_that_is_woken(program):
    body = """
        early = asyncio.create_task(sleep(1))
        await asyncio.sleep(0)
        early.cancel()
        await sleep(2)
    """
    with program(body, gives=["sleep"]) as running:
        assert (await running.sleeps(PATIENCE)).seconds == 1
        assert (await running.sleeps(PATIENCE)).seconds == 2
        running.wake()
        assert (await running.ends(PATIENCE)).error == ""


async def test_a_program_that_ends_instead_of_sleeping_says_so(program):
    with program() as running:
        failed = await failure(running.sleeps(PATIENCE))

    assert (failed.outcome, failed.got) == (Outcome.CLOSED_EARLY, "work returned")


async def test_a_program_that_waits_for_ever_shows_its_line(program):
    with program("await asyncio.Event().wait()  # for ever") as running:
        await running.starts()
        failed = await failure(running.ends(0.2))

    assert failed.outcome is Outcome.SILENCE
    assert failed.got == "it was still running after 0.2 s"
    assert failed.line.endswith("await asyncio.Event().wait()  # for ever    waits here")


# Surroundings


async def test_a_program_lives_in_an_empty_folder_with_an_empty_environment(
    program, monkeypatch
):
    monkeypatch.setenv("SECRET", "of the parent")
    body = "show([os.getcwd(), os.listdir(), 'SECRET' in os.environ])"

    with program(body, gives=["show"]) as running:
        await running.ends(PATIENCE)
        folder, files, seen = running.shown[0]

    assert (files, seen) == ([], False)
    assert not psutil.pid_exists(running.pid)
    with pytest.raises(FileNotFoundError):
        running.home.stat()
    assert str(running.home) in folder


async def test_nobody_talks_to_a_program_on_its_standard_input(program):
    with program("show(sys.stdin.read())", gives=["show"]) as running:
        await running.ends(PATIENCE)

    assert running.shown == [""]


# Misbehaving


@pytest.mark.parametrize("body", ["while True: pass", "time.sleep(600)"])
async def test_an_endless_loop_is_told_with_its_line_and_ended(program, body):
    with program(f"{body}  # blocks") as running:
        assert await until(lambda: running.blocked, PATIENCE)
        failed = await failure(running.ends(0.1))

    assert failed.outcome is Outcome.LOOP_BLOCKED
    assert failed.line.endswith(f"{body}  # blocks    stops the event loop here")
    assert not psutil.pid_exists(running.pid)


@pytest.mark.parametrize("body", ["os._exit(0)", "sys.exit(0)"])
async def test_a_program_that_exits_has_not_returned(program, body):
    with program(body) as running:
        failed = await failure(running.ends(PATIENCE))

    assert failed.outcome is Outcome.PROGRAM_CRASHED
    assert failed.got == "its process ended with exit code 0"


async def test_a_flood_of_output_is_cut_and_stops_nobody(program):
    body = "for _ in range(100): print('x' * 1024 * 1024, flush=True)"

    with program(body) as running:
        assert (await running.ends(PATIENCE)).error == ""
        assert len(running.log) < LOG_LIMIT + 100


async def test_a_printed_verdict_is_no_verdict(program):
    forged = '{"ended": {"error": "", "line": 0}}'
    body = f"print({forged!r}, flush=True); raise AssertionError"

    with program(body) as running:
        ending = await running.ends(PATIENCE)

    assert ending.error == "AssertionError"


@posix
async def test_nonsense_on_the_line_to_the_grader_is_no_fault_of_the_grader(program):
    body = """
        import stat
        parts = [b'nonsense', b'[]', b'[' * 100_000, b'{"shown": 1, "ended": 1}']
        parts += [b'{"sleeps": "x"}', b'{"ended": {"error": 1}}', b'{"drawn": null}']
        for number in range(3, 16):
            try:
                if stat.S_ISFIFO(os.fstat(number).st_mode):
                    os.write(number, b'\\n'.join(parts) + b'\\n')
            except OSError:
                pass
    """
    with program(body) as running:
        ending = await running.ends(PATIENCE)

    assert ending.error == ""


@posix
async def test_a_line_without_an_end_is_not_kept(program):
    body = """
        import stat
        for number in range(3, 16):
            try:
                if stat.S_ISFIFO(os.fstat(number).st_mode):
                    for _ in range(4):
                        os.write(number, b'x' * 1024 * 1024)
                    os.write(number, b'\\n')
            except OSError:
                pass
    """
    with program(body) as running:
        assert (await running.ends(PATIENCE)).error == ""


async def test_a_program_that_uses_its_tools_for_ever_is_stopped(program, monkeypatch):
    monkeypatch.setattr(programs, "CALLS_LIMIT", 100)

    with program("while True: show('again')", gives=["show"]) as running:
        failed = await failure(running.ends(PATIENCE))

    assert failed.outcome is Outcome.PROGRAM_CRASHED
    assert "its tools 101 times" in failed.got
    assert len(running.shown) == 100


async def test_a_program_that_shows_too_much_is_stopped(program, monkeypatch):
    monkeypatch.setattr(programs, "SHOWN_LIMIT", 1000)

    with program("while True: show('x' * 300)", gives=["show"]) as running:
        failed = await failure(running.ends(PATIENCE))

    assert "with 1200 characters" in failed.got


async def test_the_children_of_a_program_end_with_it(program):
    body = """
        code = "import time; time.sleep(600)"
        for apart in (True, False):
            child = subprocess.Popen([sys.executable, "-c", code], start_new_session=apart)
            show(child.pid)
    """
    with program(body, gives=["show"]) as running:
        await running.ends(PATIENCE)
        # The program itself has ended before its children do.
        assert await until(lambda: running.exit_code is not None, PATIENCE)

    for child in running.shown:
        assert await is_gone(child)


@posix
async def test_a_forked_copy_of_a_program_ends_with_it(program):
    body = """
        if child := os.fork():
            show(child)
        else:
            time.sleep(600)
    """
    with program(body, gives=["show"]) as running:
        await running.ends(PATIENCE)

    assert await is_gone(running.shown[0])
