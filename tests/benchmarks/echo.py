"""Echo: what it costs a server to receive a message and to answer it.

    python tests/benchmarks/echo.py --plot echo.png

Each client speaks, waits for its echo, and speaks again. `ratio` is the CPU time of the
bare Starlette app a message divided by this server's, in the same round: above 1 is
cheaper. The bare app runs twice, so that the ratio of `bare Starlette again` shows what is
noise; with one client that is a lot. `generator` is the share of its core that the load
generator used: near 1, the throughput is the generator's. In a round all servers run, and
have their turns of about a thousand messages.
"""

import functools
import time
from typing import Annotated

import bench
import typer
from bench import PEERS, Measures, Program

PATH = "/ws/echo"
BASE = "bare Starlette"
SLICE = 1000  # messages

Clients = Annotated[str, typer.Option(help="How many clients speak at once.")]
Sizes = Annotated[str, typer.Option(help="Bytes of a text.")]
Messages = Annotated[int, typer.Option(min=1, help="In one measurement, of all clients.")]

COLUMNS: bench.Columns = {
    "server": lambda row: row["server"],
    "clients": lambda row: row["clients"],
    "bytes": lambda row: row["bytes"],
    "µs CPU a message": lambda row: row["cpu_us"],
    "ratio": lambda row: row["ratio"],
    "messages/s": lambda row: row["per_second"]["median"],
    "p50, ms": lambda row: row["p50_ms"]["median"],
    "p99, ms": lambda row: row["p99_ms"]["median"],
    "generator": lambda row: row["generator"]["median"],
}


def programs() -> list[Program]:
    bare = [BASE, f"{BASE} again"]
    return [
        *(bench.under_uvicorn(name, PEERS, "bare_starlette", PATH) for name in bare),
        bench.example("echo_server", PATH),
        *bench.peers(PATH),
    ]


class Echoes(bench.Trial):
    """All clients speak, again when they are answered; in the end all are."""

    def exchange(self) -> None:
        asked: dict[bench.Client, float] = {}

        def say(client: bench.Client) -> None:
            asked[client] = time.perf_counter()
            client.send(self.said)

        for client in self.crowd.clients:
            say(client)
        left = self.messages
        while asked:
            heard = self.crowd.hear(bench.REPLY_DEADLINE)
            if not heard:
                raise SystemExit(f"no echo comes.\n{self.crowd.server.log.text}")
            for client, got in heard:
                if got:
                    self.delays.append(1e3 * (time.perf_counter() - asked.pop(client)))
                    if left > 0:
                        left -= 1
                        say(client)

    def measures(self) -> Measures:
        """The costs of a message, and the ms until it has come back."""
        times = {"p50_ms": bench.percentile(self.delays, 0.5)}
        times |= {"p99_ms": bench.percentile(self.delays, 0.99)}
        return self.meter.measures(len(self.delays)) | times


def measure(
    program: Program, clients: int, size: int, messages: int, *, deflate: bool = False
) -> Measures:
    """One measurement, in one go."""
    with Echoes.begun(
        program, clients, size=size, messages=messages, deflate=deflate
    ) as echoes:
        echoes.slice()
        return echoes.measures()


def script(
    clients: Clients = "1,50,500",
    sizes: Sizes = "32,4096",
    messages: Messages = 10_000,
    rounds: bench.Rounds = 7,
    only: bench.Only = "",
    quick: bench.Quick = False,
    note: bench.Note = "",
    json: bench.JsonFile = None,
    plot: bench.PlotFile = None,
) -> None:
    """Measure the echo of echo_server, of the bare Starlette and of other libraries."""
    if quick:
        clients, sizes, messages, rounds = "3", "32", 50, 1
    rows = []
    for size in bench.numbers(sizes):
        for number in bench.numbers(clients):
            slices = max(1, messages // SLICE)
            share = messages // slices
            begin = functools.partial(
                Echoes.begun, clients=number, size=size, messages=share
            )
            candidates = bench.installed(programs(), only)
            found = bench.in_slices(candidates, rounds, slices, begin)
            said = {"clients": number, "bytes": size}
            rows += bench.table(found, BASE, {"ratio": bench.cheaper}, **said)
    bench.report("echo", rows, COLUMNS, json, rounds=rounds, note=note)
    small = [row for row in rows if row["bytes"] == bench.numbers(sizes)[0]]
    bench.plot(plot, small, "cpu_us", "server", "clients", "CPU time a message, µs")


if __name__ == "__main__":
    bench.main(script)
