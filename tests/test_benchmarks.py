"""Each benchmark runs, measures what it says, and leaves nothing behind.

How fast anything is, is no business of a test: the scripts run with tiny sizes here.
"""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "tests" / "benchmarks"
DEADLINE = 110.0  # seconds; a run usually takes three
# Of each script, the servers that a test has it measure.
SCRIPTS = {
    "broadcast": ["public loop", "public loop again", "chat_server", "websockets"],
    "steps": [
        "one frame for all",
        "uvicorn's send",
        "chat_server",
        "begun without a task",
        "gather",
    ],
    "echo": ["bare Starlette", "bare Starlette again", "echo_server"],
    "slow_reader": ["chat_server", "public loop"],
    "memory": ["bare FastAPI", "bare FastAPI again", "chat_server"],
    "two_workers": ["chat_server", "redis_chat_server"],
    "settings": ["defaults", "defaults again", "deflate off"],
}
# What a measure can be, in its unit, on the slowest machine and on the fastest.
POSSIBLE = {
    "cpu_us": (0.1, 1e6),
    "busiest_us": (0.1, 1e6),
    "handshake_us": (1.0, 1e6),
    "per_second": (0.1, 1e7),
    # Processor time comes in ticks of 10 ms, which a tiny run may not last.
    "generator": (0.0, 10.0),
    "last_ms": (0.001, 1e5),
    "last_p99_ms": (0.001, 1e5),
    "added_ms": (-1e5, 1e5),
    "p50_ms": (0.001, 1e5),
    "p99_ms": (0.001, 1e5),
    "ratio": (0.001, 1e3),
    "kb": (1.0, 1e3),
    "more_kb": (-1e3, 1e3),
    "memory_mb": (-1e3, 1e3),
    "delivered": (0.0, 1.0),
    "readers": (1, 10),
    "complete": (0, 10),
    "fullest": (1, 10),
}


def run(script: str, *options: str) -> str:
    """What a benchmark prints; nothing of it may run on afterwards."""
    command = [sys.executable, "-B", str(BENCHMARKS / f"{script}.py"), *options]
    # A session of its own, so that whatever it leaves behind can be found, and ended.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=sys.platform != "win32",
    ) as process:
        try:
            printed, said = process.communicate(timeout=DEADLINE)
        finally:
            left = list(session(process.pid))
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            process.kill()
    assert process.returncode == 0, said
    assert left == []
    return printed


def session(leader: int) -> Iterator[int]:
    """The processes of a session."""
    for pid in psutil.pids() if sys.platform != "win32" else []:
        try:
            if os.getsid(pid) == leader:
                yield pid
        except OSError:
            continue


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_measures_what_it_says(script, tmp_path):
    results, picture = tmp_path / "results.json", tmp_path / "plot.png"
    only = ["--only", ",".join(SCRIPTS[script])] if script != "two_workers" else []

    printed = run(script, "--quick", *only, "--json", str(results), "--plot", str(picture))

    whole = json.loads(results.read_text(encoding="utf-8"))
    if "skipped" in whole["rows"][0]:
        pytest.skip(whole["rows"][0]["skipped"])
    assert {row["server"] for row in whole["rows"]} >= set(SCRIPTS[script])
    assert {"processor", "cores", "system", "versions"} <= set(whole["machine"])
    assert str(Path.home()) not in results.read_text(encoding="utf-8")
    for row in whole["rows"]:
        assert row["server"] in printed
        assert_possible(row)
        assert_complete(row)
    assert picture.stat().st_size


def assert_complete(row: dict) -> None:
    """All who read got everything, through two workers and beside a stalled client."""
    if "complete" in row and row["server"] != "public loop":
        wanted = row["readers"]["low"] if "readers" in row else row["receivers"]
        assert row["complete"]["low"] == wanted


def assert_possible(row: dict) -> None:
    spreads = {name: value for name, value in row.items() if isinstance(value, dict)}
    assert spreads
    for name, spread in spreads.items():
        least, most = POSSIBLE[name]
        assert all(map(math.isfinite, spread.values()))
        assert least <= spread["low"] <= spread["median"] <= spread["high"] <= most, row


def test_what_the_limits_forbid_is_said_and_not_tried(tmp_path):
    results = tmp_path / "results.json"

    printed = run("memory", "--connections", "1000000000", "--json", str(results))

    (row,) = json.loads(results.read_text(encoding="utf-8"))["rows"]
    assert "needs" in row["skipped"]
    assert row["skipped"] in printed


def test_servers_run_one_by_one_where_few_files_may_be_open(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench
    import broadcast

    # The process of the test is not to be bound to a core.
    monkeypatch.setattr(bench, "PINNED", False)
    monkeypatch.setattr(bench, "open_files", lambda needed: "too many" * (needed > 5))
    loops = broadcast.programs()[:2]

    rows = broadcast.measure_all(loops, "5,6", size=32, deliveries=50, rounds=1, only="")

    assert [row["server"] for row in rows] == ["public loop", "public loop again", "all"]
    for row in rows[:2]:
        assert_possible(row)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"round 1 of 1: {loop}" for loop in loops]


@pytest.mark.parametrize("file", sorted((ROOT / "notebooks" / "measured").glob("*.json")))
def test_stored_results_are_whole_and_name_their_machine(file):
    whole = json.loads(file.read_text(encoding="utf-8"))

    assert whole["machine"]["processor"]
    assert {row["server"] for row in whole["rows"]} >= set(SCRIPTS[file.stem])
