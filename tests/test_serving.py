"""Servers start, tell what they do, and end with everything that they started."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

from exercises.grader import forking, serving
from exercises.grader.clients import Conversation
from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.serving import (
    LOG_LIMIT,
    Report,
    ServerFailed,
    ServerProcess,
    patience,
    until,
)
from exercises.grader.serving_here import serve_here

ROOT = Path(__file__).parent.parent
PATIENCE = 10.0  # seconds for what comes at once on a machine that has time
MEBIBYTE = 1024 * 1024

# A server that does something for each text; without FastAPI it starts three times as fast.
SERVER = """\
import asyncio, json, os, subprocess, sys, time

{top}

async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({{"type": "websocket.accept"}})

    async def say(text):
        await send({{"type": "websocket.send", "text": text}})

    while (text := (await receive()).get("text")) is not None:
{body}
"""
# A process in a session of its own, which outlives its parent unless somebody ends it.
SLEEPER = (
    "[sys.executable, '-c', 'import time; time.sleep(600)'],"
    " start_new_session=True, stdout=subprocess.DEVNULL"
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")


@pytest.fixture
def student(tmp_path):
    def write(body="await say(text)", top="", name="exercise.py"):
        file = tmp_path / name
        body = textwrap.indent(textwrap.dedent(body).strip(), " " * 8)
        file.write_text(SERVER.format(top=textwrap.dedent(top), body=body), "utf-8")
        return file

    return write


async def ask(server, text="?"):
    """Send a text to a server and return its answer."""
    async with Conversation(server.url) as conversation:
        ana = await conversation.join("ana")
        await ana.send(text)
        return await ana.receive()


def names_in(folder):
    return [path.name for path in Path(folder).iterdir()]


def python(code):
    """A Python process with pipes to and from it."""
    pipe, command = subprocess.PIPE, [sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


async def is_gone(pid):
    """Wait until a process has ended, whoever has to bury it; end it if it does not."""

    def gone():
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    if await until(gone, PATIENCE):
        return True
    psutil.Process(pid).kill()
    return False


# Starting


async def test_a_server_accepts_as_soon_as_it_is_ready(student):
    with ServerProcess(student()) as server:
        assert await ask(server, "hello") == "hello"
        assert server.exit_code is None
        assert server.url.endswith(f":{server.port}")
        assert server.trouble == []


async def test_what_an_app_prints_stands_in_the_log(student):
    top = "print('to stdout', flush=True); print('to stderr', file=sys.stderr)"

    with ServerProcess(student(top=top)) as server:
        await ask(server)
        assert server.report().beating  # By now, all that was printed is read.
        assert "to stdout" in server.log
        assert "to stderr" in server.log
        assert "Uvicorn running on" in server.log


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def :", "SyntaxError"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("answer = 42", 'Attribute "app" not found'),
        ("raise KeyError('no such thing')", "KeyError: 'no such thing'"),
        ("raise SystemExit(0)", ""),
        ("import os; os._exit(3)", ""),
        ("import os; os.kill(os.getpid(), 9)", ""),
    ],
)
def test_a_file_that_does_not_import_fails_at_once_and_says_why(tmp_path, code, words):
    file = tmp_path / "exercise.py"
    file.write_text(code, "utf-8")
    server = ServerProcess(file)

    with pytest.raises(ServerFailed) as failed, server:
        pass

    assert str(failed.value).startswith("exercise.py did not start")
    assert words in str(failed.value)
    assert not psutil.pid_exists(server.pid)


def test_a_lifespan_that_fails_is_a_server_that_did_not_start(tmp_path):
    file = tmp_path / "exercise.py"
    file.write_text("async def app(scope, receive, send):\n    raise KeyError", "utf-8")
    options = ["--lifespan=on"]

    with pytest.raises(ServerFailed, match="did not start") as failed:
        ServerProcess(file, options=options).__enter__()

    assert "KeyError" in str(failed.value)


def test_a_server_that_is_never_ready_is_ended_at_the_deadline(student):
    server = ServerProcess(student(top="while True: pass"))

    with pytest.raises(ServerFailed, match="was not ready after 0.5 s"):
        server.wait_ready(0.5)

    server.end()
    assert not psutil.pid_exists(server.pid)


@pytest.mark.parametrize("name", [".stub.py", "my-answer.v2.py", "řešení 1.py", "json.py"])
async def test_a_file_may_have_any_name(student, name):
    with ServerProcess(student(name=name)) as server:
        assert await ask(server, "hello") == "hello"


async def test_a_forged_line_in_the_log_is_not_believed(student):
    top = "print('Uvicorn running on http://127.0.0.1:1', flush=True)"

    with ServerProcess(student(top=top)) as server:
        assert server.port != 1
        assert await ask(server, "hello") == "hello"


async def test_a_flood_of_output_is_cut_and_stops_nobody(student):
    top = "for _ in range(100): print('x' * 1024 * 1024, flush=True)"

    with ServerProcess(student(top=top)) as server:
        assert await ask(server, "hello") == "hello"
        # The answer came after the flood, so the log has its last line soon.
        assert await until(lambda: "Uvicorn running" in server.log, PATIENCE)
        assert len(server.log) < LOG_LIMIT + 100
        assert "bytes left out" in server.log


# Surroundings


async def test_a_server_sees_nothing_of_the_environment_but_what_it_needs(
    student, monkeypatch
):
    monkeypatch.setenv("SECRET", "of the parent")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    file = student("await say(json.dumps(dict(os.environ)))")

    with ServerProcess(file, environment={"GIVEN": "on purpose"}) as server:
        seen = await ask(server)

    needed = {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "SYSTEMROOT", "WINDIR", "COMSPEC"}
    homes = {"HOME", "USERPROFILE", "TMPDIR", "TEMP", "PATHEXT"}
    assert set(seen) <= needed | homes | {"GIVEN"}
    assert seen["GIVEN"] == "on purpose"


async def test_a_server_lives_in_a_fresh_folder_that_is_gone_afterwards(student):
    file = student("open('left', 'w').close(); await say(os.getcwd())")

    with ServerProcess(file) as server:
        folder = await ask(server)
        assert names_in(folder) == ["left"]

    with pytest.raises(FileNotFoundError):
        names_in(folder)
    assert names_in(file.parent) == [file.name]


@posix
async def test_a_students_server_is_limited(student):
    file = student("""
        import resource
        kinds = "NOFILE", "FSIZE", "CPU", "CORE"
        names = ["RLIMIT_" + kind for kind in kinds]
        limits = [resource.getrlimit(getattr(resource, name)) for name in names]
        try:
            with open("large", "wb") as large:
                for _ in range(32):
                    large.write(bytes(1024 * 1024))
        except OSError as error:
            limits.append(type(error).__name__)
        await say(json.dumps(limits))
    """)

    with ServerProcess(file, limited=True) as server:
        files, size, seconds, core, error = await ask(server)

    assert files[0] == files[1] <= 1024
    assert size[0] == size[1] <= 16 * MEBIBYTE
    assert seconds[0] == seconds[1] <= 60
    assert core == [0, 0]
    assert error == "OSError"


async def test_the_server_is_the_same_whatever_the_defaults_of_uvicorn_become(student):
    file = student("""
        protocol = send.__self__
        config = protocol.config
        pings = config.ws_ping_interval, config.ws_ping_timeout
        await say(json.dumps([type(protocol).__name__, *pings]))
    """)

    # uvicorn takes these for its defaults.
    pings = {"UVICORN_WS_PING_INTERVAL": "7", "UVICORN_WS_PING_TIMEOUT": "7"}
    defaults = pings | {"UVICORN_WS": "none", "UVICORN_PORT": "1"}
    with ServerProcess(file, environment=defaults) as server:
        assert await ask(server) == ["WebSocketsSansIOProtocol", 20.0, 20.0]


async def test_options_given_win_over_those_pinned(student):
    options = ["--ws-ping-interval=0.05", "--ws-ping-timeout=0.05"]

    with ServerProcess(student(), options=options) as server:
        async with Conversation(server.url) as conversation:
            zoe = await conversation.join("zoe", reads=False)
            assert await until(lambda: server.report().handlers == 1, PATIENCE)
            # Who answers no ping is dropped, so the server is empty again.
            assert await server.settled(PATIENCE)
            assert zoe.joined


# Looking inside


async def test_a_server_says_where_its_handlers_wait(student):
    file = student("""
        await say(text)
        await asyncio.Event().wait()  # for ever
    """)

    with ServerProcess(file) as server:
        await ask(server)
        assert not await server.settled(0.1)
        report = server.report()

    assert (report.handlers, report.beating) == (1, True)
    assert "await asyncio.Event().wait()  # for ever" in [p.code for p in report.waiting]
    assert str(report.waiting[0]).startswith("exercise.py:")


async def test_a_server_is_settled_when_its_clients_have_left(student):
    with ServerProcess(student()) as server:
        assert await ask(server, "hello") == "hello"

        assert await server.settled()

        await server.expect_quiet()
        assert server.report() == Report(handlers=0, beating=True)


async def test_a_handler_that_outlives_its_client_is_not_quiet(student, monkeypatch):
    monkeypatch.setattr(ServerProcess.settled, "__defaults__", (0.1,))
    file = student("await say(text); await asyncio.Event().wait()")

    with ServerProcess(file) as server:
        await ask(server)
        with pytest.raises(Failure) as failed:
            await server.expect_quiet()

    assert failed.value.outcome is Outcome.SILENCE
    assert failed.value.got == "1 still running"


async def test_a_task_that_outlives_its_handler_is_not_quiet(student, monkeypatch):
    monkeypatch.setattr(serving, "SETTLE_DEADLINE", 0.1)
    body = "tasks.add(asyncio.create_task(wait())); await say(text)"
    top = """
        tasks = set()
        async def wait():
            await asyncio.Event().wait()
    """

    with ServerProcess(student(body, top=top)) as server:
        before = server.report()
        await ask(server)
        await server.expect_quiet()
        with pytest.raises(Failure) as failed:
            await server.expect_quiet(since=before)

    assert failed.value.outcome is Outcome.SILENCE
    assert failed.value.expected == "nothing runs for those who have left"


async def test_a_server_that_has_ended_is_not_quiet(student, monkeypatch):
    monkeypatch.setattr(ServerProcess.settled, "__defaults__", (0.1,))
    with ServerProcess(student("os._exit(0)")) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana")
            await ana.send("end")
            await ana.expect_close(1006)

        assert not await server.settled(0.1)
        with pytest.raises(Failure):
            await server.expect_quiet()


@pytest.mark.parametrize(("idle", "moved"), [(0.0, False), (60.0, True)])
async def test_patience_lasts_longer_on_a_machine_that_has_no_time_to_spare(
    monkeypatch, idle, moved
):
    spent, ends = iter([0.0, idle]), []
    monkeypatch.setattr(serving, "idle", lambda: next(spent))

    async def wait_for_ever():
        async with patience(0.1) as limit:
            ends.append(limit.when())
            try:
                await asyncio.Event().wait()
            finally:
                ends.append(limit.when())

    with pytest.raises(TimeoutError):
        await wait_for_ever()
    assert (ends[0] != ends[1]) is moved


async def test_a_blocked_loop_is_noticed_with_its_line(student):
    with ServerProcess(student("time.sleep(60)  # blocks")) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana")
            await ana.send("block")

            assert await until(lambda: server.blocked, PATIENCE)
            assert not server.report().beating

    assert [place.code for place in server.blocked] == ["time.sleep(60)  # blocks"]


async def test_a_busy_server_that_lets_others_go_on_is_not_called_blocked(student):
    file = student("""
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            sum(range(10_000))
            await asyncio.sleep(0)
        await say(text)
    """)

    with ServerProcess(file) as server:
        assert await ask(server, "hello") == "hello"
        assert server.blocked == []


@posix
async def test_a_server_that_got_no_time_is_not_called_blocked(student):
    with ServerProcess(student("await say(text); await asyncio.sleep(60)")) as server:
        await ask(server)
        for _ in range(3):
            os.kill(server.pid, signal.SIGSTOP)
            # No report for longer than the loop may be silent.
            assert await until(lambda: server.report(0.4) == Report(), PATIENCE)
            os.kill(server.pid, signal.SIGCONT)
            assert await until(lambda: server.report().beating, PATIENCE)

    assert server.blocked == []


@posix
async def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(student):
    with ServerProcess(student()) as server:
        os.kill(server.pid, signal.SIGSTOP)
        assert await until(lambda: server.report(0.1) == Report(), PATIENCE)
        os.kill(server.pid, signal.SIGCONT)

        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana")
            await ana.send("hello")
            await ana.expect("hello")
            assert server.report().handlers == 1


async def test_a_crash_is_found_with_its_line(student):
    with ServerProcess(student("json.loads('{')  # crashes")) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana")
            await ana.send("crash")
            await ana.expect_close(1006)

        assert await until(lambda: bool(server.trouble), PATIENCE)
        assert server.crashed_at.code == "json.loads('{')  # crashes"
        assert "JSONDecodeError" in server.trouble[-1]


# Misbehaving


async def test_a_server_that_exits_shows_its_exit_code(student):
    with ServerProcess(student("os._exit(3)")) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana")
            await ana.send("end")
            await ana.expect_close(1006)

        assert server.report() == Report()
        assert server.exit_code == 3


async def test_a_server_that_closes_its_standard_streams_goes_on(student):
    with ServerProcess(student(top="os.close(0); os.close(1)")) as server:
        assert await ask(server, "hello") == "hello"
        assert await server.settled()


async def test_a_server_that_closes_every_file_never_hangs_the_grader(student):
    file = student("os.closerange(3, 64)")

    with ServerProcess(file) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana")
            await ana.send("close")
            assert await until(lambda: not server.report(0.1).beating, PATIENCE)

    assert await is_gone(server.pid)


@posix
async def test_nonsense_on_the_line_to_the_grader_is_no_fault_of_the_grader(student):
    top = """
        import fcntl, stat
        nonsense = b'nonsense\\n[]\\n{"report": 1}\\n{"blocked": {}}\\n'
        for number in range(3, 16):
            try:
                pipe = stat.S_ISFIFO(os.fstat(number).st_mode)
                if pipe and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_WRONLY:
                    os.write(number, nonsense)
            except OSError:
                pass
    """

    with ServerProcess(student(top=top)) as server:
        assert await ask(server, "hello") == "hello"
        assert server.report().beating


@posix
async def test_a_server_that_blocks_for_ever_and_hears_no_signal_is_ended(student):
    top = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"

    with ServerProcess(student("while True: pass", top)) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana")
            await ana.send("block")
            assert await until(lambda: server.blocked, PATIENCE)

    assert not psutil.pid_exists(server.pid)


# Ending


async def test_the_children_of_a_server_end_with_it(student):
    child = f"subprocess.Popen({SLEEPER})"
    file = student("await say(str(child.pid))", top=f"child = {child}")

    with ServerProcess(file) as server:
        child = await ask(server)

    assert await is_gone(child)
    assert not psutil.pid_exists(server.pid)


@posix
async def test_a_forked_copy_of_a_server_ends_with_it(student):
    body = """
        if not (child := os.fork()):
            time.sleep(600)
        await say(str(child))
    """

    with ServerProcess(student(body)) as server:
        child = await ask(server)

    assert await is_gone(child)


@pytest.mark.parametrize("listed", [forking.LISTED, False])
def test_who_has_ended_has_no_children_and_that_is_no_error(monkeypatch, listed):
    monkeypatch.setattr(forking, "LISTED", listed)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as parent:
        while not (family := forking.children(parent.pid)):
            assert parent.poll() is None

        assert serving.family_of(parent.pid) == [parent.pid, *family]

    assert forking.children(parent.pid) == []


@posix
async def test_an_orphan_of_a_server_ends_with_it(student):
    # A child in between starts it and ends, so that it is nobody's child any more.
    code = f"import subprocess, sys; print(subprocess.Popen({SLEEPER}).pid)"
    file = student(
        f"await say(subprocess.check_output([sys.executable, '-c', {code!r}]).decode())"
    )

    with ServerProcess(file) as server:
        orphan = await ask(server)

    assert await is_gone(orphan)


@posix
async def test_what_an_orphan_started_ends_too_though_it_shows_no_home(student):
    # As an embedded Valkey: its keeper is nobody's child, and itself it hides where it is.
    keeper = f"""
import os, subprocess, sys
if not os.fork():
    os.setsid()
    started = subprocess.Popen({SLEEPER}, env={{}})
    print(started.pid, flush=True)
    os.close(1)
    started.wait()
"""
    file = student(
        f"await say(subprocess.check_output([sys.executable, '-c', {keeper!r}]).decode())"
    )

    with ServerProcess(file) as server:
        hidden = await ask(server)

    assert await is_gone(hidden)


async def test_a_child_ends_also_when_its_server_has_ended_before(student, tmp_path):
    note = tmp_path / "child"
    top = f"""
        child = subprocess.Popen({SLEEPER})
        open({str(note)!r}, "w").write(str(child.pid))
        os._exit(3)
    """

    with pytest.raises(ServerFailed), ServerProcess(student(top=top)):
        pass

    assert await is_gone(int(note.read_text()))


async def test_a_server_ends_also_when_its_parent_is_killed(student):
    # A module of the name of one that the watchman needs must not stop it.
    student(name="psutil.py").write_text("raise SystemExit", "utf-8")
    file = student("await say(str(child.pid))", top=f"child = subprocess.Popen({SLEEPER})")
    code = f"""
        from pathlib import Path
        from exercises.grader.serving import ServerProcess
        with ServerProcess(Path({str(file)!r})) as server:
            print(server.pid, server.url, flush=True)
            input()
    """
    with python(textwrap.dedent(code)) as parent:
        pid, url = parent.stdout.readline().split()
        async with Conversation(url) as conversation:
            ana = await conversation.join("ana")
            await ana.send("who is your child?")
            child = await ana.receive()
            parent.kill()

    assert await is_gone(int(pid))
    assert await is_gone(child)


async def test_ctrl_c_ends_a_server_by_itself(student):
    with ServerProcess(student()) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana")

            server.interrupt()

            await ana.expect_close(1012)
            server.wait(PATIENCE)
    assert "Finished server process" in server.log


# Forking


@pytest.fixture
def fork_server(monkeypatch):
    """A fork server of this test's own."""
    server = forking.ForkServer()
    monkeypatch.setattr(forking, "fork", server.fork)
    yield server
    server.end()


FACTS = """
    import asyncio, gc, os, random, signal, socket, sys, threading
    streams = [sys.stdin, sys.stdout, sys.stderr]
    def kind(number):
        try:
            return os.readlink(f"/proc/self/fd/{number}").split(":")[0]
        except OSError:
            return None
    facts = {
        "arguments": sys.argv, "path": sys.path, "flags": list(sys.flags),
        "prefix": [sys.prefix, sys.executable], "main": sys.modules["__main__"].__file__,
        "handlers": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        "masked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "descriptors": [kind(number) for number in range(20)],
        "streams": [(s.encoding, s.errors, s.line_buffering, s.fileno()) for s in streams],
        "seekable": [s.seekable() for s in streams],
        "session": [os.getsid(0) == os.getpgrp() == os.getpid()],
        "umask": os.umask(0o22), "threads": threading.active_count(),
        "native": threading.get_native_id() == os.getpid(),
        "collects": [gc.isenabled(), gc.get_threshold()],
        "home": os.getcwd() == os.environ["HOME"], "environment": sorted(os.environ),
        "seconds": time.process_time() < 30,
    }
    drawn = random.random()
"""


@linux
async def test_a_forked_server_is_like_a_fresh_one(student, fork_server):
    file = student("await say(json.dumps([facts, drawn]))", FACTS)

    seen = []
    for usable in (True, True, False):
        fork_server.usable = usable
        with ServerProcess(file, limited=True) as server:
            seen.append(await ask(server))
            assert isinstance(server._process, forking.Forked) == usable

    (first, drawn), (second, again), (fresh, _) = seen
    # Python itself adds this one to a fresh environment.
    for facts in (first, second, fresh):
        facts["environment"] = set(facts["environment"]) - {"LC_CTYPE"}
    assert first == second == fresh
    assert drawn != again


@linux
async def test_a_server_sees_nothing_of_the_fork_server_and_of_another(
    student, fork_server
):
    with ServerProcess(student(), environment={"TOKEN": "of-ana"}):
        file = student(
            "await say(json.dumps([links, shown]))",
            """
            links = [os.readlink(f"/proc/self/fd/{n}") for n in range(3, 7)]
            links += [os.path.exists(f"/proc/self/fd/{n}") for n in range(7, 1024)]
            shown = open("/proc/self/environ").read() + str(os.environ)
            """,
            name="other.py",
        )
        with ServerProcess(file) as server:
            links, shown = await ask(server)

    # Its lines to the grader, and an empty standard input.
    assert all(link.startswith(("pipe:", "/dev/null")) for link in links[:4])
    assert not any(links[4:])
    assert "of-ana" not in shown


@linux
async def test_a_fork_server_that_is_killed_costs_nothing_but_time(student, fork_server):
    with ServerProcess(student()) as before:
        fork_server.process.kill()
        fork_server.process.wait()
        assert await ask(before, "hello") == "hello"
        assert before.exit_code is None

        with ServerProcess(student()) as after:
            assert await ask(after, "hello") == "hello"
        assert not isinstance(after._process, forking.Forked)

    assert before.exit_code == forking.UNKNOWN
    assert await is_gone(before.pid)


@linux
async def test_a_fork_server_that_is_stopped_holds_up_nobody(
    student, fork_server, monkeypatch
):
    monkeypatch.setattr(forking, "BURIAL", 0.1)
    body = "os.kill(os.getppid(), signal.SIGSTOP); await say('stopped')"
    stopped = ServerProcess(student(body, top="import signal"))
    stopped.wait_ready()
    assert await ask(stopped) == "stopped"

    ending = threading.Thread(target=stopped.end, daemon=True)
    ending.start()

    assert await until(lambda: not ending.is_alive(), PATIENCE)
    assert await is_gone(stopped.pid)
    assert await is_gone(fork_server.process.pid)
    with ServerProcess(student()) as server:
        assert await ask(server, "hello") == "hello"


@linux
async def test_a_server_that_kills_its_session_does_not_reach_the_fork_server(
    student, fork_server
):
    with ServerProcess(student("os.killpg(0, 9)")) as server:
        async with Conversation(server.url) as conversation:
            ana = await conversation.join("ana")
            await ana.send("end")
            await ana.expect_close(1006)
        assert server.wait(PATIENCE) == -9

    assert fork_server.process.poll() is None
    with ServerProcess(student()) as server:
        assert await ask(server, "hello") == "hello"
        assert isinstance(server._process, forking.Forked)


@linux
@pytest.mark.parametrize("broken", ["raise SystemExit", "print('12', flush=True)"])
async def test_without_a_fork_server_all_goes_on(
    student, fork_server, monkeypatch, tmp_path, broken
):
    file = tmp_path / "broken.py"
    file.write_text(broken, "utf-8")
    monkeypatch.setattr(forking, "__file__", str(file))

    with ServerProcess(student()) as server:
        assert await ask(server, "hello") == "hello"

    assert not fork_server.usable


@linux
async def test_the_fork_server_ends_with_the_process_that_started_it(student):
    code = f"""
        from pathlib import Path
        from exercises.grader import forking
        from exercises.grader.serving import ServerProcess
        with ServerProcess(Path({str(student())!r})):
            print(forking.server.process.pid, flush=True)
            input()
    """
    for end in ("kill", "terminate", "communicate"):
        with python(textwrap.dedent(code)) as parent:
            pid = int(parent.stdout.readline())
            getattr(parent, end)()

        assert await is_gone(pid)


@linux
@pytest.mark.parametrize("limited", [True, False])
async def test_a_copy_that_hides_ends_with_its_server(student, tmp_path, limited):
    # As a daemon does: in a session of its own, nobody's child, and elsewhere.
    note = tmp_path / "copy"
    top = f"""
        if copy := os.fork():
            os.waitpid(copy, 0)
            os._exit(3)
        os.setsid()
        if copy := os.fork():
            open({str(note)!r}, "w").write(str(copy))
            os._exit(0)
        os.chdir("/")
        os.closerange(0, 64)
        time.sleep(600)
    """

    with pytest.raises(ServerFailed), ServerProcess(student(top=top), limited=limited):
        pass

    assert await is_gone(int(note.read_text()))


@linux
async def test_the_end_of_a_server_spares_what_another_has_started(student):
    code = f"import subprocess, sys; print(subprocess.Popen({SLEEPER}).pid)"
    file = student(
        f"await say(subprocess.check_output([sys.executable, '-c', {code!r}]).decode())"
    )

    with ServerProcess(file) as server:
        orphan = await ask(server)
        with ServerProcess(student(name="other.py")) as other:
            assert await ask(other, "hello") == "hello"

        assert psutil.Process(orphan).status() != psutil.STATUS_ZOMBIE
    assert await is_gone(orphan)


# In the caller's own event loop


async def echo(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (text := (await receive()).get("text")) is not None:
            protocol = type(send.__self__).__name__
            await send({"type": "websocket.send", "text": f"{protocol}: {text}"})


async def test_an_app_is_served_in_this_loop_by_the_same_protocol():
    async with serve_here(echo) as server:
        assert await ask(server, "hello") == "WebSocketsSansIOProtocol: hello"
        assert await server.settled()
        assert server.handlers == 0
        assert "connection open" in server.log


async def test_an_app_in_this_loop_says_whether_its_handlers_run():
    async with serve_here(echo) as server, Conversation(server.url) as conversation:
        ana = await conversation.join("ana")

        assert not await server.settled(0.05)

        await ana.leave()
        assert await server.settled()


async def test_an_app_in_this_loop_whose_lifespan_fails_leaves_nothing_behind():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(ServerFailed, match="no database"):
        async with serve_here(app):
            pass

    # An open socket would be a warning, and so an error of this test.
    gc.collect()


async def test_the_server_in_this_loop_gives_its_port_back():
    async with serve_here(echo) as server:
        assert await ask(server)

    with pytest.raises(Failure, match="no connection"):
        await ask(server)
