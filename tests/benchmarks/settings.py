"""Settings: what options of uvicorn change for the examples as they are.

    python tests/benchmarks/settings.py

The broadcast of chat_server and the echo of echo_server, under uvicorn's defaults, which
run twice to show what is noise, and then with one option changed. `ratio` is the CPU time
under the defaults divided by that with the option, in the same round: above 1 is cheaper.
Only in the rows with `deflate` do the clients offer compression, as browsers do; the texts
are random hexadecimal digits, of which deflate saves about half.
"""

import functools
from typing import Annotated

import bench
import broadcast
import echo
import typer
from bench import Measures, Program

BASE = "defaults"
Settings = dict[str, tuple[str, ...]]
SETTINGS: Settings = {
    BASE: (),
    f"{BASE} again": (),
    "deflate": (),
    "deflate off": ("--ws-per-message-deflate=false",),
    "asyncio's loop": ("--loop=asyncio",),
    "wsproto": ("--ws=wsproto",),
    "websockets, deprecated": ("--ws=websockets",),
    "pings every second": ("--ws-ping-interval=1",),
}
NEEDS = {"wsproto": "wsproto"}

Clients = Annotated[str, typer.Option(help="How many clients there are.")]
Size = Annotated[int, typer.Option(min=1, help="Bytes of a text.")]
Messages = Annotated[int, typer.Option(min=1, help="In one measurement, at least.")]

COLUMNS: bench.Columns = {
    "work": lambda row: row["work"],
    "setting": lambda row: row["server"],
    "clients": lambda row: row["clients"],
    "µs CPU a message": lambda row: row["cpu_us"],
    "ratio": lambda row: row["ratio"],
    "messages/s": lambda row: row["per_second"]["median"],
    "generator": lambda row: row["generator"]["median"],
}


def programs(stem: str, path: str) -> list[Program]:
    return [
        bench.example(stem, path, name, *options, module=NEEDS.get(name, ""))
        for name, options in SETTINGS.items()
    ]


def offers(program: Program) -> bool:
    """Whether the clients offer deflate; the server may still refuse it."""
    return program.name.startswith("deflate")


def measure_broadcast(program: Program, clients: int, size: int, messages: int) -> Measures:
    return broadcast.measure(program, clients, size, messages, deflate=offers(program))


def measure_echo(program: Program, clients: int, size: int, messages: int) -> Measures:
    return echo.measure(program, clients, size, messages, deflate=offers(program))


WORK = {
    "broadcast": (measure_broadcast, programs("chat_server", broadcast.PATH)),
    "echo": (measure_echo, programs("echo_server", echo.PATH)),
}


def script(
    clients: Clients = "100",
    size: Size = 128,
    messages: Messages = 20_000,
    rounds: bench.Rounds = 5,
    only: bench.Only = "",
    quick: bench.Quick = False,
    note: bench.Note = "",
    json: bench.JsonFile = None,
    plot: bench.PlotFile = None,
) -> None:
    """Measure what options of uvicorn change."""
    if quick:
        clients, messages, rounds = "3", 50, 1
    rows = []
    for work, (function, candidates) in WORK.items():
        for number in bench.numbers(clients):
            one = functools.partial(function, clients=number, size=size, messages=messages)
            found = bench.in_turns(bench.installed(candidates, only), rounds, one)
            said = {"work": work, "clients": number, "bytes": size}
            rows += bench.table(found, BASE, {"ratio": bench.cheaper}, **said)
    bench.report("settings", rows, COLUMNS, json, rounds=rounds, note=note)
    bench.plot(plot, rows, "cpu_us", "server", "work", "CPU time a message, µs")


if __name__ == "__main__":
    bench.main(script)
