"""Steps: what a delivery is made of, and what other designs of a broadcast cost.

    python tests/benchmarks/steps.py --plot steps.png

Each server does a little more than the one before, so that the differences are the costs
of the steps: writing a frame to a connection; building the frame and calling uvicorn's
`send`; the `send_text` of Starlette; and the queue and the writer of chat_server, which
survives every fault. Then two other designs: a send that is begun without a task, which is
faster but breaks behind a middleware, and `gather`, which is popular and waits for the
slowest. Otherwise it is the same as broadcast.py.
"""

import bench
import broadcast
from bench import PEERS, Program
from broadcast import BASE, PATH

COLUMNS: bench.Columns = {
    name: show for name, show in broadcast.COLUMNS.items() if name != "generator"
}


def programs() -> list[Program]:
    def design(name: str, path: str) -> Program:
        return bench.under_uvicorn(name, PEERS, "designs", path)

    return [
        design("one frame for all", "/ws/frame"),
        design("uvicorn's send", "/ws/asgi"),
        bench.under_uvicorn(BASE, PEERS, "public_loop", PATH),
        bench.under_uvicorn(f"{BASE} again", PEERS, "public_loop", PATH),
        bench.example("chat_server", PATH),
        bench.under_uvicorn("begun without a task", PEERS, "begun_sends", PATH),
        design("gather", "/ws/gather"),
    ]


def script(
    receivers: broadcast.Receivers = "100,1000",
    size: broadcast.Size = 128,
    deliveries: broadcast.Deliveries = 30_000,
    rounds: bench.Rounds = 5,
    only: bench.Only = "",
    quick: bench.Quick = False,
    note: bench.Note = "",
    json: bench.JsonFile = None,
    plot: bench.PlotFile = None,
) -> None:
    """Measure the steps of a delivery, and other designs."""
    if quick:
        receivers, deliveries, rounds = "5", 100, 1
    rows = broadcast.measure_all(programs(), receivers, size, deliveries, rounds, only)
    bench.report("steps", rows, COLUMNS, json, rounds=rounds, note=note)
    bench.plot(plot, rows, "cpu_us", "server", "receivers", "CPU time a delivery, µs")


if __name__ == "__main__":
    bench.main(script)
