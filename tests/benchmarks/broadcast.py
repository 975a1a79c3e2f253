"""Broadcast: what it costs a server to deliver one message to many clients.

    python tests/benchmarks/broadcast.py --plot broadcast.png

One client speaks, all clients receive; when all have it, the client speaks again. The unit
is a delivery: one message to one client. `ratio` is the public loop's CPU time a delivery
divided by this server's, in the same round: above 1 is cheaper. The public loop runs twice,
so that the ratio of `public loop again` shows what is noise. `generator` is the share of
its core that the load generator used: near 1, the throughput is the generator's. In a round
all servers run, and have their turns of about a thousand deliveries; one server runs after
the other where the system does not allow so many open files.
"""

import functools
import time
from typing import Annotated

import bench
import typer
from bench import PEERS, Measures, Program

PATH = "/ws/chat"
BASE = "public loop"
FEWEST = 10  # messages in a measurement
SLICE = 1000  # deliveries, or a single message to more clients than that

Receivers = Annotated[str, typer.Option(help="How many clients receive.")]
Size = Annotated[int, typer.Option(min=1, help="Bytes of the text that is said.")]
Deliveries = Annotated[int, typer.Option(min=1, help="In one measurement, at least.")]

COLUMNS: bench.Columns = {
    "server": lambda row: row["server"],
    "receivers": lambda row: row["receivers"],
    "µs CPU a delivery": lambda row: row["cpu_us"],
    "ratio": lambda row: row["ratio"],
    "deliveries/s": lambda row: row["per_second"]["median"],
    "to the last, ms": lambda row: row["last_ms"]["median"],
    "generator": lambda row: row["generator"]["median"],
}


def programs() -> list[Program]:
    loops = [BASE, f"{BASE} again"]
    return [
        *(bench.under_uvicorn(name, PEERS, "public_loop", PATH) for name in loops),
        bench.example("chat_server", PATH),
        *bench.peers(PATH),
    ]


class Talk(bench.Trial):
    """The first client speaks to all clients, again when all have heard it."""

    def exchange(self) -> None:
        for _ in range(self.messages):
            began = time.perf_counter()
            self.crowd.clients[0].send(self.said)
            self.crowd.hear_all(len(self.crowd.clients))
            self.delays.append(1e3 * (time.perf_counter() - began))

    def measures(self) -> Measures:
        """The costs of a delivery, and the median of the ms until the last has it."""
        heard = {client.messages for client in self.crowd.clients}
        assert len(heard) == 1, "not all got all"
        costs = self.meter.measures(len(self.delays) * len(self.crowd.clients))
        return costs | {"last_ms": bench.percentile(self.delays, 0.5)}


def measure(
    program: Program, receivers: int, size: int, deliveries: int, *, deflate: bool = False
) -> Measures:
    """One measurement, in one go."""
    number = max(FEWEST, deliveries // receivers)
    with Talk.begun(
        program, receivers, size=size, messages=number, deflate=deflate
    ) as talk:
        talk.slice()
        return talk.measures()


def measure_all(
    candidates: list[Program],
    receivers: str,
    size: int,
    deliveries: int,
    rounds: int,
    only: str,
) -> list[bench.Row]:
    """The rows of the table."""
    rows = []
    for number in bench.numbers(receivers):
        if reason := bench.open_files(number):
            rows.append({"server": "all", "receivers": number, "skipped": reason})
            continue
        runnable = bench.installed(candidates, only)
        if bench.open_files(number * len(runnable)):
            one = functools.partial(
                measure, receivers=number, size=size, deliveries=deliveries
            )
            found = bench.in_turns(runnable, rounds, one)
        else:
            messages = max(1, SLICE // number)
            slices = max(FEWEST, deliveries // number) // messages or 1
            begin = functools.partial(
                Talk.begun, clients=number, size=size, messages=messages
            )
            found = bench.in_slices(runnable, rounds, slices, begin)
        said = {"receivers": number, "bytes": size}
        rows += bench.table(found, BASE, {"ratio": bench.cheaper}, **said)
    return rows


def script(
    receivers: Receivers = "10,100,1000,5000",
    size: Size = 128,
    deliveries: Deliveries = 30_000,
    rounds: bench.Rounds = 5,
    only: bench.Only = "",
    quick: bench.Quick = False,
    note: bench.Note = "",
    json: bench.JsonFile = None,
    plot: bench.PlotFile = None,
) -> None:
    """Measure the broadcast of chat_server, of the public loop and of other libraries."""
    if quick:
        receivers, deliveries, rounds = "5", 100, 1
    rows = measure_all(programs(), receivers, size, deliveries, rounds, only)
    bench.report("broadcast", rows, COLUMNS, json, rounds=rounds, note=note)
    bench.plot(plot, rows, "cpu_us", "server", "receivers", "CPU time a delivery, µs")


if __name__ == "__main__":
    bench.main(script)
