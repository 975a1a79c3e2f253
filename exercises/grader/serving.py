"""Starts servers, waits until they accept, and ends them with everything they started.

`ServerProcess` runs an app's file under uvicorn in a process of its own, as a student does
in a terminal.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import psutil

from . import forking
from .child import strays
from .outcomes import Failure, Outcome

START_DEADLINE = 20.0  # seconds; a server is usually ready after 0.4
STOP_DEADLINE = 20.0  # seconds; a server usually stops within 0.2
SETTLE_DEADLINE = 3.0  # seconds; a handler usually ends within a few milliseconds
END_DEADLINE = 2.0  # seconds for what a child wrote before its end to be read
POLL = 0.01  # seconds
SPARE = 0.2  # of all processors; of a machine that has less to spare, nobody is to blame
ENDED = 0  # the number of the report that stands for the end of all reports
LAST_WORDS = 1.0  # seconds for a process that ends to be gone, and its log to be read
ROUNDS = 100  # times to look for children that a dying server still starts
LOG_LIMIT = 64 * 1024  # bytes; of a longer log the first and the last half are kept
LINE_LIMIT = 1024 * 1024  # bytes of one line from a child; a longer one is nonsense

# What the app is served with: the same everywhere, whatever uvicorn's defaults become.
PINNED = [
    "--ws=websockets-sansio",
    "--ws-ping-interval=20",
    "--ws-ping-timeout=20",
    "--no-use-colors",
]
# What a server gets to see of the environment: enough to run, nothing to steal.
ALLOWED = ["PATH", "LANG", "LC_ALL", "SYSTEMROOT", "WINDIR", "COMSPEC", "PATHEXT"]

# What a student's server may use, with all that it starts.
MEMORY_LIMIT = 768 * 1024 * 1024  # bytes
PROCESS_LIMIT = 50
LOOK = 0.25  # seconds between two looks at that

CHILD = Path(__file__).with_name("child.py")
MARKS, HALF_MARK = re.compile(rb"\x1e(\d+)\x1e"), re.compile(rb"(\x1e\d*)?\Z")
LONGEST_MARK = 20  # bytes
# An error in the log: the exception at the end of a traceback, else the line itself.
TROUBLE = re.compile(
    r"^(?:[A-Za-z_.]*(?:Error|Exception|Disconnect)\w*\b.*|ERROR:.*)", re.M
)
NEVER_AWAITED = "was never awaited"  # the end of Python's word on a forgotten `await`
# uvicorn says this of every handshake that was refused with a response, rightly or not.
SPURIOUS = "ASGI callable returned without completing handshake."
LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')


class ServerFailed(Exception):
    """The server did not start; the message is its log."""


@dataclass(frozen=True)
class Place:
    """A line of the student's file."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}  {self.code}"

    @property
    def code(self) -> str:
        """The text of the line."""
        with contextlib.suppress(OSError, IndexError):
            lines = self.file.read_text(encoding="utf-8").splitlines()
            return lines[self.line - 1].strip()
        return ""


@dataclass(frozen=True)
class Report:
    """What a child says of itself."""

    handlers: int = 0
    beating: bool = False
    waiting: tuple[Place, ...] = ()


class _Log:
    """The first and the last part of what a child wrote, `LOG_LIMIT` bytes at most."""

    def __init__(self) -> None:
        self.head, self.tail, self.size = b"", b"", 0
        self.mark = 0  # the number of the last report up to which all was read
        self._half = b""  # of a mark, the other half of which is still to come

    def add(self, chunk: bytes) -> None:
        chunk = self._half + chunk
        for found in MARKS.finditer(chunk):
            self.mark = int(found[1])
        chunk = MARKS.sub(b"", chunk)
        end = max(0, len(chunk) - LONGEST_MARK)
        self._half = HALF_MARK.search(chunk, end)[0]  # type: ignore[index]
        chunk = chunk.removesuffix(self._half)
        self.size += len(chunk)
        room = LOG_LIMIT // 2 - len(self.head)
        self.head += chunk[:room]
        self.tail = (self.tail + chunk[room:])[-LOG_LIMIT // 2 :]

    def text(self) -> str:
        missing = self.size - len(self.head) - len(self.tail)
        gap = f"\n… {missing} bytes left out …\n".encode() if missing else b""
        whole = self.head + gap + self.tail
        return whole.decode(errors="replace").replace("\r\n", "\n")


class Child:
    """A student's file in a process, a folder and a session of its own.

    `job` is what `child.py` does with it; `environment` is added to the few variables that
    are passed on; `limited` bounds what a student's code may use.
    """

    def __init__(
        self,
        file: Path,
        job: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        limited: bool = False,
    ) -> None:
        self.file = file.resolve()
        self.ready = False
        self.blocked: list[Place] = []
        self.excess = ""  # what it was ended for
        self._log = _Log()
        self._asked = 0
        self._reports: queue.Queue[tuple[int, Report]] = queue.Queue()
        self._announced = threading.Event()
        self._ended = threading.Event()
        self._folder = tempfile.TemporaryDirectory(
            prefix="server-", ignore_cleanup_errors=True
        )
        self._process = self._start(job, environment or {}, limited)
        jobs = [self._read_log, self._read_replies, *([self._watch] if limited else [])]
        self._readers = [threading.Thread(target=job, daemon=True) for job in jobs]
        for reader in self._readers:
            reader.start()

    def _start(
        self, job: Sequence[str], environment: Mapping[str, str], limited: bool
    ) -> subprocess.Popen[bytes] | forking.Forked:
        home = self._folder.name
        passed = {key: os.environ[key] for key in ALLOWED if key in os.environ}
        passed |= {"HOME": home, "USERPROFILE": home, "TMPDIR": home, "TEMP": home}
        passed |= environment
        arguments = [str(self.file), "1" if limited else "0", *job]
        if forked := forking.fork(arguments, home, passed):
            return forked
        # A session of its own: Ctrl-C in the terminal or a notebook is not for it.
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        return subprocess.Popen(
            # -I keeps the caller's folder and PYTHON… variables out, -B leaves no caches.
            [sys.executable, "-I", "-B", str(CHILD), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env=passed,
            **apart,
        )

    def _read_log(self) -> None:
        assert self._process.stderr
        with contextlib.suppress(OSError):
            while chunk := os.read(self._process.stderr.fileno(), LOG_LIMIT):
                self._log.add(chunk)

    def _read_replies(self) -> None:
        assert self._process.stdout
        with contextlib.suppress(OSError):
            # An app can find this line and write nonsense to it, without an end.
            while line := self._process.stdout.readline(LINE_LIMIT):
                with contextlib.suppress(
                    ValueError, TypeError, LookupError, AttributeError, RecursionError
                ):
                    self._take_reply(json.loads(line))
        self._announced.set()
        self._reports.put((ENDED, Report()))

    def _take_reply(self, message: dict[str, Any]) -> None:
        if place := message.get("blocked"):
            self.blocked.append(Place(self.file, place["line"]))
        elif said := message.get("report"):
            places = tuple(Place(self.file, p["line"]) for p in said["waiting"])
            report = Report(said["handlers"], said["beating"], places)
            self._reports.put((said["number"], report))

    def _watch(self) -> None:
        """End a student's code that takes too much of the machine."""
        while not self._ended.wait(LOOK) and self.exit_code is None:
            family = family_of(self._process.pid)
            used = sum(map(memory, family))
            if used > MEMORY_LIMIT:
                self.excess = f"more than {MEMORY_LIMIT >> 20} MiB of memory"
            elif len(family) > PROCESS_LIMIT:
                self.excess = f"more than {PROCESS_LIMIT} processes"
            if self.excess:
                end_family(self._process.pid)
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait_ready(self, deadline: float | None = None) -> None:
        """Return when it has begun what it is for; raise `ServerFailed` if it cannot."""
        deadline = START_DEADLINE if deadline is None else deadline
        # A child that the app left behind may hold the log open after the server's end.
        for _ in range(int(deadline / POLL)):
            if self._announced.wait(POLL) or self._process.poll() is not None:
                break
        if self._process.poll() is not None:
            # Who ends at once may have begun: all that it said is to be read first.
            self._readers[1].join(END_DEADLINE)
        if not self.ready:
            if self._announced.is_set():  # the log ended: so does the process, at once
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(LAST_WORDS)
            ended = self._process.poll() is not None
            self._readers[0].join(LAST_WORDS if ended else POLL)
            why = "did not start" if ended else f"was not ready after {deadline:g} s"
            why = f"was ended: it used {self.excess}" if self.excess else why
            raise ServerFailed(f"{self.file.name} {why}.\n{self.log}")

    @property
    def log(self) -> str:
        """What was logged and printed."""
        return self._log.text()

    @property
    def home(self) -> Path:
        """The folder that is its home, its place for temporary files, and where it runs."""
        return Path(self._folder.name)

    @property
    def pid(self) -> int:
        """The process that runs the file."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """`None` while it runs."""
        return self._process.poll()

    @property
    def crashed_at(self) -> Place | None:
        """The file's own line in the last traceback of the log."""
        found = None
        for match in LINE.finditer(self.log):
            if Path(match["file"]) == self.file:
                found = Place(self.file, int(match["line"]))
        return found

    @property
    def trouble(self) -> list[str]:
        """The errors in the log, a line each."""
        lines = [line.strip() for line in TROUBLE.findall(self.log)]
        return [line for line in lines if not line.endswith(SPURIOUS)]

    @property
    def never_awaited(self) -> list[str]:
        """What the log says of forgotten `await`s, a line each, from the file's name on."""
        lines = [line for line in self.log.splitlines() if line.endswith(NEVER_AWAITED)]
        return [re.split(r"[/\\]", line)[-1] for line in lines]

    def report(self, deadline: float = 2.0) -> Report:
        """Ask the process how it is; an empty report if it no longer answers."""
        assert self._process.stdin
        end = time.monotonic() + deadline
        try:
            self._process.stdin.write(b"?")
            self._process.stdin.flush()
            self._asked += 1
            # A report that was given up may still come, before this one.
            number, report = -1, Report()
            while number not in (self._asked, ENDED):
                left = max(0.0, end - time.monotonic())
                number, report = self._reports.get(timeout=left)
            # What was logged before the report is to be read before it is looked at.
            while number != ENDED and self._log.mark < number and time.monotonic() < end:
                self._ended.wait(POLL / 10)
        except queue.Empty:
            return Report()
        except (OSError, ValueError):
            number, report = ENDED, Report()
        if number == ENDED:
            # Its end is near; who asks next wants the exit code.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LAST_WORDS)
        return report

    def interrupt(self) -> None:
        """Ctrl-C."""
        if sys.platform == "win32":
            self._process.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            self._process.send_signal(signal.SIGINT)

    def wait(self, deadline: float = STOP_DEADLINE) -> int:
        """Wait until it has ended by itself and return its exit code."""
        code = self._process.wait(deadline)
        self._readers[0].join(deadline)
        return code

    def end(self) -> None:
        """End the process and everything it started, now."""
        if self._ended.is_set():
            return  # By now its number may be another process's.
        self._ended.set()
        end_family(self._process.pid)
        exit_code = self._process.wait()
        # What it left behind before it ended has been ended by a fork server that tells of
        # its end. Elsewhere it is found by its home, and what that started by its parent:
        # a program may write over its environment, as Valkey does.
        if not isinstance(self._process, forking.Forked) or exit_code == forking.UNKNOWN:
            for process in strays(self._folder.name):
                with contextlib.suppress(psutil.Error):
                    end_family(process.pid)
        # Each stream is closed after its reader has seen the end of it: closed under a
        # reader, its number could be another file's by the next read.
        for reader in self._readers:
            reader.join(END_DEADLINE)
        if not any(reader.is_alive() for reader in self._readers):
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                assert stream
                with contextlib.suppress(OSError):
                    stream.close()
        self._folder.cleanup()


class ServerProcess(Child):
    """An app's file under uvicorn, in a process, a folder and a session of its own.

    `with ServerProcess(file) as server:` is ready when it enters and leaves nothing
    behind. It raises `ServerFailed` with uvicorn's own words if the file does not import.
    `options` are uvicorn's; `environment` is added to the few variables that are passed
    on; `limited` bounds what a student's code may use.
    """

    def __init__(
        self,
        file: Path,
        *,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        limited: bool = False,
    ) -> None:
        self.port = 0
        app = [f"--app-dir={file.resolve().parent}", "--port=0"]
        job = ["serve", *app, *PINNED, *options]
        super().__init__(file, job, environment, limited=limited)

    def _take_reply(self, message: dict[str, Any]) -> None:
        if port := message.get("port"):
            self.port = int(port)
            self.ready = True
            self._announced.set()
        else:
            super()._take_reply(message)

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.end()
            raise
        return self

    @property
    def url(self) -> str:
        """Where its WebSockets are: `ws://127.0.0.1:PORT`."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.port}"

    async def settled(self, deadline: float = SETTLE_DEADLINE) -> bool:
        """Wait until no handler runs any more, or the deadline is over."""

        def over() -> bool:
            report = self.report()
            empty = report.beating and report.handlers == 0
            return empty or self.exit_code is not None

        return await until(over, deadline) and self.exit_code is None

    async def expect_quiet(self, since: Report | None = None) -> None:
        """Expect that all handlers have ended by now and that no error was logged.

        With the report of an earlier moment, also that nothing else runs than did then.
        """
        if not await self.settled():
            report = self.report()
            raise Failure(
                Outcome.SILENCE,
                "every handler ends when its client has left",
                f"{report.handlers} still running"
                if report.beating
                else "the server does not answer",
            )
        if self.trouble:
            wanted = "the log stays free of errors"
            raise Failure(Outcome.SERVER_CRASHED, wanted, self.trouble[-1])
        if since and not await until(
            lambda: set(self.report().waiting) <= set(since.waiting), SETTLE_DEADLINE
        ):
            raise Failure(
                Outcome.SILENCE,
                "nothing runs for those who have left",
                "their handlers have ended, but what they started has not",
            )


def family_of(pid: int) -> list[int]:
    """A process and all its descendants that can be seen."""
    family = [pid]
    for member in family:  # which grows meanwhile
        family += forking.children(member)
    return family


def memory(pid: int) -> int:
    """The bytes of memory that a process holds; none if it has ended, or hides that."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def end_family(pid: int) -> None:
    """Kill a process, its descendants, and the group that it leads."""
    with contextlib.suppress(psutil.NoSuchProcess):
        # Stopped, it starts nothing more while its children are ended; they may, so look
        # again until none is left.
        psutil.Process(pid).suspend()
        for _ in range(ROUNDS):
            left = [member for member in family_of(pid)[1:] if forking.runs(member)]
            if not left:
                break
            for member in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(member).kill()
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()


def load(file: Path) -> ModuleType:
    """Import a file as a fresh module, so that no state is left from the last time."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader, f"{file} is not a Python file"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def idle() -> float:
    """The seconds for which processors of this machine have had nothing to do, in sum."""
    return float(psutil.cpu_times().idle)


@contextlib.asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """`asyncio.timeout`, and twice as long where processors had no time to spare.

    Who works, and would have been ready in time, must not fail for what others do.
    """
    before, enough = idle(), SPARE * (os.cpu_count() or 1) * seconds
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(2 * seconds) as limit:

        def look() -> None:
            if idle() - before >= enough:
                limit.reschedule(loop.time())

        timer = loop.call_later(seconds, look)
        try:
            yield limit
        finally:
            timer.cancel()


async def until(holds: Callable[[], bool], deadline: float) -> bool:
    """Wait for something that can be seen but does not announce itself."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline):
            while not holds():
                await asyncio.sleep(POLL)
    return holds()
