"""The slow reader: what the others notice of clients that have stopped reading.

    python tests/benchmarks/slow_reader.py --plot slow_reader.png

One client speaks at a steady pace, all the others receive, and some of them have stopped
reading without a word. For those who read, `p99, ms` says how long a message took to reach
them, and `ratio` divides by the same without a stalled client, in the same round: 1.5 is
half as slow again. `complete` counts those who got every message before the deadline; a
server that waits for the stalled reaches nobody. `memory` is the most that the server's
resident memory grew since all were connected.
"""

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import bench
import typer
from bench import PEERS, Measures, Program

PATH = "/ws/chat"
PATIENCE = 3.0  # seconds without a message, after which what is missing is lost
NARROW = 64 * 1024  # bytes of the receive buffer of a client that stalls
LOOK = 10  # messages between two looks at the server's memory

Clients = Annotated[int, typer.Option(min=3, help="With the speaker and the stalled.")]
Stalled = Annotated[str, typer.Option(help="How many of them do not read.")]
Size = Annotated[int, typer.Option(min=1, help="Bytes of a text.")]
Messages = Annotated[int, typer.Option(min=1, help="In one measurement.")]
Pace = Annotated[float, typer.Option(min=0.1, help="Messages a second.")]

COLUMNS: bench.Columns = {
    "server": lambda row: row["server"],
    "stalled": lambda row: row["stalled"],
    "readers": lambda row: row["readers"]["median"],
    "complete": lambda row: row["complete"],
    "p50, ms": lambda row: row["p50_ms"],
    "p99, ms": lambda row: row["p99_ms"],
    "ratio": lambda row: row["ratio"],
    "memory, MB": lambda row: row["memory_mb"],
    "generator": lambda row: row["generator"]["median"],
}


def programs() -> list[Program]:
    return [
        bench.example("chat_server", PATH),
        bench.under_uvicorn("public loop", PEERS, "public_loop", PATH),
        *bench.peers(PATH),
    ]


@dataclass(frozen=True)
class Case:
    """A server, and how many of its clients stall."""

    program: Program
    stalled: int

    def __str__(self) -> str:
        return f"{self.program}, {self.stalled} stalled"


@contextlib.contextmanager
def stalling(server: bench.Server, number: int) -> Iterator[None]:
    """Clients that are connected and do not read."""
    clients = [bench.Client(server.port, PATH, buffer=NARROW) for _ in range(number)]
    yield
    for client in clients:
        client.socket.close()


def measure(case: Case, clients: int, size: int, messages: int, pace: float) -> Measures:
    """One measurement: the delays of those who read, in ms, and the server's memory."""
    said = bench.frame(bench.text(size))
    readers = clients - case.stalled
    began: list[float] = []
    delays: list[float] = []
    with contextlib.ExitStack() as stack:
        crowd = stack.enter_context(bench.crowd(case.program, readers))
        stack.enter_context(stalling(crowd.server, case.stalled))
        for client in crowd.clients:
            client.least = size  # that somebody left is not what is measured
        before = most = crowd.server.memory()

        def hear(end: float) -> bool:
            """Listen until then, or until all is heard; true if anything was."""
            heard = False
            while (left := end - time.perf_counter()) > 0 and not finished():
                if crowd.clients[0].outgoing:
                    crowd.clients[0].offer()
                for client, got in crowd.hear(left):
                    now = time.perf_counter()
                    for number in range(client.messages - got, client.messages):
                        heard = True
                        delays.append(1e3 * (now - began[number]))
            return heard

        def finished() -> bool:
            return len(began) == messages and len(delays) == messages * readers

        with bench.Meter(crowd.server) as meter:
            first = time.perf_counter()
            for number in range(messages):
                began.append(time.perf_counter())
                # A server that waits for others may not read what is said to it.
                crowd.clients[0].offer(said)
                hear(first + (number + 1) / pace)
                if number % LOOK == 0:
                    most = max(most, crowd.server.memory())
            while hear(time.perf_counter() + PATIENCE):
                pass
            most = max(most, crowd.server.memory())
        complete = sum(client.messages == messages for client in crowd.clients)
    found = {
        "readers": float(readers),
        "complete": float(complete),
        "delivered": len(delays) / messages / readers,
        "memory_mb": (most - before) / 1e6,
        "generator": meter.measures(1)["generator"],
    }
    if complete == readers:
        found |= {f"p{n}_ms": bench.percentile(delays, n / 100) for n in (50, 99)}
    return found


def script(
    clients: Clients = 100,
    stalled: Stalled = "0,1,10",
    size: Size = 64 * 1024,
    messages: Messages = 240,
    pace: Pace = 20.0,
    rounds: bench.Rounds = 3,
    only: bench.Only = "",
    quick: bench.Quick = False,
    note: bench.Note = "",
    json: bench.JsonFile = None,
    plot: bench.PlotFile = None,
) -> None:
    """Measure what readers notice of stalled clients; `ratio` is to the first number."""
    if quick:
        clients, stalled, messages, pace, rounds = 5, "0,1", 10, 50.0, 1
    one = functools.partial(
        measure, clients=clients, size=size, messages=messages, pace=pace
    )
    programs_here = bench.installed(programs(), only)
    counts = bench.numbers(stalled)
    cases = [Case(program, count) for program in programs_here for count in counts]
    found = bench.in_turns(cases, rounds, one)
    rows = []
    for case, measured in found.items():
        fair = found[Case(case.program, counts[0])]
        named = {"server": case.program.name, "stalled": case.stalled}
        rows.append(bench.row(measured, fair, {"ratio": slower}, **named))
    said = {"clients": clients, "bytes": size, "messages": messages, "pace": pace}
    bench.report("slow reader", rows, COLUMNS, json, **said, rounds=rounds, note=note)
    bench.plot(plot, rows, "p99_ms", "server", "stalled", "p99 of those who read, ms")


def slower(own: Measures, other: Measures) -> float:
    """One's own 99th percentile divided by the other's."""
    return own["p99_ms"] / other["p99_ms"]


if __name__ == "__main__":
    bench.main(script)
