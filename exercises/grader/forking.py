"""Starts children as forks of one process that has imported what they need.

A fresh `child.py` spends nearly all of its time on imports. `fork` starts this file once,
as `python -I -B forking.py`, and asks it for a fork that becomes what `child.py` is. It
returns `None` where that cannot be: then `subprocess.Popen` does the same, more slowly.

Only on Linux. On macOS a forked process may crash in the system's own libraries, as in the
one that a client asks for proxies (python/cpython#77906, #105912).

The fork server imports no student's code. It has one thread: of more, a fork would keep
one, and the locks of all. It ends when its starter does, whose end of the line is then
closed, and is in a session of its own, as each child is in another. What a child leaves
behind when it ends, in whatever session, becomes the fork server's child and ends, too.
"""

import atexit
import contextlib
import gc
import importlib
import json
import multiprocessing.process
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import psutil

DEADLINE = 20.0  # seconds for a fork; the first waits for the imports, usually 0.4
PAUSE = 0.002  # seconds between two looks at whether a child has ended
BURIAL = 10.0  # seconds for the fork server to tell of a child that was killed
UNKNOWN = 255  # the exit code of a child whose fork server ended before it
LONGEST = 2 * 1024 * 1024  # bytes of a request; the system does not send as much

CHILD = Path(__file__).with_name("child.py")
LISTED = Path("/proc/thread-self/children").exists()  # whether Linux lists children
# What uvicorn, FastAPI and a client of websockets import sooner or later. FastAPI asks
# pydantic.v1 about the first parameter that it meets, which is half of an app's start.
PRELOADED = [
    "concurrent.futures.thread",
    "encodings.idna",
    "fastapi",
    "fastapi.responses",
    "pydantic.v1",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.main",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "websockets.asyncio.client",
]
# What single lessons need, by a word that stands in a file that imports it. Most fork
# servers never meet such a file; where one does, others like it usually follow.
SELDOM = {b"aiosqlite": "aiosqlite", b"jwt": "jwt", b"redis": "redis.asyncio"}


class Forked:
    """A child of the fork server: as much of `subprocess.Popen` as `serving.py` uses."""

    def __init__(self, server: "ForkServer", pid: int, streams: Sequence[int]) -> None:
        self.server, self.pid = server, pid
        self.returncode: int | None = None
        stdin, stdout, stderr, self._ending = streams
        self.stdin, self.stdout = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")
        self.stderr = os.fdopen(stderr, "rb")
        # Any thread may be reading it at any time, so it stays open as long as this.
        weakref.finalize(self, os.close, self._ending)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, `None` while it runs."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if self.returncode is None:
                if code := os.read(self._ending, 16):
                    self.returncode = int(code)
                elif not runs(self.pid):
                    self.returncode = UNKNOWN
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return the exit code.

        Without a timeout it has been killed. If nothing is heard of that, somebody has
        stopped the fork server, and it is killed as well.
        """
        end = time.monotonic() + (BURIAL if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                if timeout is not None:
                    raise subprocess.TimeoutExpired(str(CHILD), timeout)
                self.server.end()
            time.sleep(PAUSE)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def preloaded(file: Path) -> list[str]:
    """What the fork server is to import before it makes a child for this file."""
    with contextlib.suppress(OSError):
        text = file.read_bytes()
        return [name for word, name in SELDOM.items() if word in text]
    return []


def children(pid: int) -> list[int]:
    """The children of a process, also those that have ended and are not buried.

    Linux lists those of each thread. While one of them is buried, by its parent, others may
    be missing. Elsewhere every process of the machine has to be asked for its parent.
    """
    if not LISTED:
        with contextlib.suppress(psutil.Error):
            return [process.pid for process in psutil.Process(pid).children()]
        return []
    threads: list[Path] = []
    found: list[int] = []
    # The process may end at any time, and each of its threads before it.
    with contextlib.suppress(OSError):
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    for thread in threads:
        with contextlib.suppress(OSError):
            found += map(int, (thread / "children").read_text().split())
    return found


def runs(pid: int) -> bool:
    """Whether a process that somebody else has to bury has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class ForkServer:
    """The line to this process's fork server; once that fails, there is none any more."""

    def __init__(self) -> None:
        self.usable = sys.platform == "linux"
        self.process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start it now, for somebody who will need it when it has imported all."""
        with self._lock, contextlib.suppress(OSError):
            if self.usable and not self._line:
                self._start(os.environ)

    def fork(
        self, arguments: Sequence[str], home: str, environment: Mapping[str, str]
    ) -> Forked | None:
        """Start `child.py` in a session of its own, or return `None`."""
        if sys.platform != "linux":
            return None
        request = {
            "arguments": arguments,
            "home": home,
            "environment": dict(environment),
            "preloaded": preloaded(Path(arguments[0])),
        }
        with self._lock:
            if not self.usable:
                return None
            pipes = [os.pipe() for _ in range(4)]  # in, out, err, and the exit code
            pipes[0] = pipes[0][::-1]
            # Whoever is interrupted from here on must not leave an answer to the next.
            self.usable = False
            try:
                line = self._line or self._start(environment)
                theirs = [end for _, end in pipes]
                socket.send_fds(line, [json.dumps(request).encode()], theirs)
                pid = int(line.recv(16))
                self.usable = True
            except (OSError, ValueError):
                return None
            finally:
                for our, their in pipes:
                    os.close(their)
                    if not self.usable:
                        os.close(our)
                if not self.usable:
                    self.end()
            os.set_blocking(pipes[3][0], False)
            return Forked(self, pid, [our for our, _ in pipes])

    def _start(self, environment: Mapping[str, str]) -> socket.socket:
        # Python looks at these when it starts; the rest is different in each child.
        kept = {key: environment[key] for key in ("LANG", "LC_ALL") if key in environment}
        # One message is one request, however long.
        self._line, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._line.settimeout(DEADLINE)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", __file__],
                stdin=theirs.fileno(),
                # Nobody reads it. Python sets its streams up for pipes, as in a child.
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=kept,
                start_new_session=True,
            )
        atexit.register(self.end)
        return self._line

    def end(self) -> None:
        """End it; its children go on, for each has lines of its own to this process."""
        self.usable = False
        atexit.unregister(self.end)
        if self._line:
            self._line.close()
        if self.process:
            with self.process as process:
                process.kill()


server = ForkServer()
fork = server.fork


def main() -> None:
    """Be the fork server, and in a fork of it the child."""
    gc.disable()  # Imports leave little to collect, and looking for it is a fifth of them.
    code = compile(CHILD.read_bytes(), str(CHILD), "exec")
    child: dict[str, Any] = {"__name__": "child"}
    exec(code, child)  # its imports
    child["adopt"]()
    preload(PRELOADED)
    gc.enable()
    become(code, *until_forked())


def preload(names: Iterable[str]) -> None:
    """Import what children need, once for all of them."""
    for name in names:
        with contextlib.suppress(ImportError):  # If it matters, the child will say so.
            importlib.import_module(name)
    # What is here now is not looked at again, so its memory stays shared with the forks.
    gc.freeze()


def until_forked() -> tuple[dict[str, Any], list[int]]:
    """Answer requests, and tell of ends; in each child, return what it was asked for."""
    if sys.platform != "linux":
        raise OSError
    # An old system has no such thing; then there is to be no child either.
    os.close(os.pidfd_open(os.getpid()))
    line = socket.socket(fileno=0)
    running: dict[int, tuple[int, int]] = {}
    # No descriptor belongs to an object but the line: in a child, which closes them all, an
    # object that goes later would close what has the same number then.
    poll = select.poll()
    poll.register(line, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in running:
                pid, ending = running.pop(ready)
                exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                end_orphans({pid for pid, _ in running.values()})
                with contextlib.suppress(OSError):
                    os.write(ending, str(exit_code).encode())
                poll.unregister(ready)
                os.close(ready)
                os.close(ending)
                continue
            request, streams, _, _ = socket.recv_fds(line, LONGEST, 4)
            if not request:
                os._exit(0)  # The starter has gone.
            asked = json.loads(request)
            preload(name for name in asked["preloaded"] if name not in sys.modules)
            if not (pid := os.fork()):
                # A child that its starter does not hear of is not to begin.
                line.send(str(os.getpid()).encode())
                line.detach()
                return asked, streams
            *standard, ending = streams
            for stream in standard:
                os.close(stream)
            watched = os.pidfd_open(pid)
            running[watched] = pid, ending
            poll.register(watched, select.POLLIN)


def end_orphans(known: set[int]) -> None:
    """End what a child left behind, and what that has started.

    A child keeps its orphans while it runs: whatever else is here belonged to one that
    has ended, however it hides. Killed, it leaves its own children here, so look again.
    Nobody else buries them, so none is missing.
    """
    while left := [pid for pid in children(os.getpid()) if pid not in known]:
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def become(code: CodeType, request: dict[str, Any], streams: list[int]) -> None:
    """Make this fork what a fresh `python -I -B child.py …` is, and run that.

    Python itself has seeded `random` anew. No signal handler was ever set, no event loop
    made.
    """
    if sys.platform != "linux":
        raise OSError
    os.setsid()
    for number in range(3):
        os.dup2(streams[number], number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    home = request["home"]
    os.chdir(home)
    # Where uvicorn's workers would start.
    vars(multiprocessing.process)["ORIGINAL_DIR"] = home
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [str(CHILD), *request["arguments"]]
    module = sys.modules["__main__"] = ModuleType("__main__")
    module.__file__ = str(CHILD)
    exec(code, vars(module))


if __name__ == "__main__":
    main()
