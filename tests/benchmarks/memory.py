"""Memory: what an idle connection costs a server.

    python tests/benchmarks/memory.py --connections 1000,10000

The unit is a connection: how much the server's resident memory grew, divided by the number
of clients that came and said nothing. `more` is what that is beyond the bare endpoint of
FastAPI with the same clients. Browsers and most libraries offer compression (deflate); a
server that takes the offer keeps buffers for it. `handshake` is the server's CPU time for
opening a connection. What the system's kernel keeps is not counted.

50,000 connections use several loopback addresses, since one has not enough ports; where the
limits of a machine do not allow so many, the results say why.
"""

import functools
import sys
from typing import Annotated

import bench
import psutil
import typer
from bench import PEERS, PORTS, Measures, Program

PATH = "/ws/chat"
BASE = "bare FastAPI"
DEAREST = 150_000  # bytes that a connection takes at most, both ends together
OFF = "--ws-per-message-deflate=false"

Connections = Annotated[str, typer.Option(help="How many clients come.")]
Deflate = Annotated[bool, typer.Option(help="With clients that offer deflate, too.")]

COLUMNS: bench.Columns = {
    "server": lambda row: row["server"],
    "connections": lambda row: row["connections"],
    "clients offer": lambda row: "deflate" if row["deflate"] else "",
    "kB a connection": lambda row: row["kb"],
    "more": lambda row: row["more_kb"],
    "handshake, µs CPU": lambda row: row["handshake_us"]["median"],
}


def programs() -> list[Program]:
    bare = [(BASE, []), (f"{BASE} again", []), (f"{BASE}, deflate off", [OFF])]
    return [
        *(bench.under_uvicorn(n, PEERS, "bare_fastapi", PATH, *o) for n, o in bare),
        bench.example("chat_server", PATH),
        bench.example("chat_server", PATH, "chat_server, deflate off", OFF),
        bench.example("echo_server", "/ws/echo"),
        bench.under_uvicorn("public loop", PEERS, "public_loop", PATH),
        *bench.peers(PATH),
    ]


def measure(program: Program, connections: int, deflate: bool) -> Measures:
    """One measurement: kB of resident memory a connection."""
    with bench.crowd(program, 1, deflate=deflate) as crowd:
        before = crowd.server.memory()
        with bench.Meter(crowd.server) as meter:
            crowd.grow(connections)
        grown = crowd.server.memory() - before
    return {"kb": grown / 1e3 / connections, "handshake_us": 1e6 * meter.cpu / connections}


def obstacle(connections: int) -> str:
    """Why so many connections cannot be had here, or nothing."""
    if connections > PORTS and sys.platform != "linux":
        return "needs several loopback addresses, which only Linux has without set-up"
    free = psutil.virtual_memory().available
    if connections * DEAREST > free:
        return f"needs {connections * DEAREST:,} bytes of memory, and {free:,} are free"
    return bench.open_files(connections)


def script(
    connections: Connections = "1000,10000,50000",
    deflate: Deflate = True,
    rounds: bench.Rounds = 3,
    only: bench.Only = "",
    quick: bench.Quick = False,
    note: bench.Note = "",
    json: bench.JsonFile = None,
    plot: bench.PlotFile = None,
) -> None:
    """Measure the memory of idle connections."""
    if quick:
        connections, deflate, rounds = "50", False, 1
    rows = []
    for number in bench.numbers(connections):
        if reason := obstacle(number):
            rows.append({"server": "all", "connections": number, "skipped": reason})
            continue
        for offered in [False, True] if deflate else [False]:
            one = functools.partial(measure, connections=number, deflate=offered)
            measured = bench.in_turns(bench.installed(programs(), only), rounds, one)
            said = {"connections": number, "deflate": offered}
            rows += bench.table(measured, BASE, {"more_kb": more}, **said)
    bench.report("memory", rows, COLUMNS, json, rounds=rounds, note=note)
    shown = [row for row in rows if not row.get("deflate")]
    bench.plot(plot, shown, "kb", "server", "connections", "memory a connection, kB")


def more(own: Measures, bare: Measures) -> float:
    """Of resident memory, in kB, beyond the bare endpoint."""
    return own["kb"] - bare["kb"]


if __name__ == "__main__":
    bench.main(script)
