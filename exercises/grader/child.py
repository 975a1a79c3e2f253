"""The process a student's file lives in, with a watchman beside it.

`serving.py` and `programs.py` run it as `python -I child.py FILE LIMITED JOB ARGUMENT…`, or
have `forking.py` make a process like that. LIMITED is 1 for a student's code. Of the job
`serve` the arguments are uvicorn's command line; of the job `run` they are the name of a
function, its URL, a seed, and the names of the tools that it is given. The three standard
streams are the line to the parent:

- in: `?` asks for a report, `!` ends the program's oldest sleep; its end means that the
  parent is gone, however it went, and everything in this process ends too.
- out: one JSON object a line, such as `{"port": …}`, `{"blocked": place}`, `{"report": …}`
  or `{"ended": …}`.
- err: the log, whatever the student's code prints, and a mark for each report.

Only the standard library, psutil and uvicorn are imported here, before the file is.
"""

import asyncio
import contextlib
import ctypes
import importlib.util
import inspect
import json
import os
import random
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import psutil

BEAT = 0.05  # seconds between two signs of life of the event loop
MARK = b"\x1e%d\x1e"
PATIENCE = 0.15  # seconds without one, after which the loop counts as blocked

HOME = os.environ.get("HOME", "")  # this process's folder, and nobody else's
LONGEST_ERROR = 300  # characters of what a program raised
CPU_SECONDS, FILE_BYTES, OPEN_FILES = 60, 16 * 1024 * 1024, 1024


class Watchman:
    """Looks at the event loop from a thread, so that it sees when the loop is blocked."""

    def __init__(self, file: str, requests: int, replies: int, log: int) -> None:
        self.file, self.requests, self.replies, self.log = file, requests, replies, log
        self.handlers: Callable[[], int] = lambda: 0
        self.wake: Callable[[], None] = lambda: None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.beaten = time.monotonic()

    def start(self) -> None:
        """Listen to the parent from now on."""
        threading.Thread(target=self.listen, daemon=True).start()

    def guard(self) -> None:
        """Watch the running event loop from now on."""
        self.loop = asyncio.get_running_loop()
        self.beat()
        threading.Thread(target=self.watch, daemon=True).start()

    def beat(self) -> None:
        assert self.loop
        self.beaten = time.monotonic()
        self.loop.call_later(BEAT, self.beat)

    def watch(self) -> None:
        """Say where the loop is blocked, once for each time that it is.

        A machine that is merely busy stops the loop anywhere. Only a loop that is found
        at the same line of the app twice, without a beat between, is called blocked.
        """
        told = found = None
        while True:
            time.sleep(BEAT)
            if time.monotonic() - self.beaten < PATIENCE or self.beaten == told:
                found = None
                continue
            last, found = found, (self.beaten, self.running())
            if last == found and found[1]:
                self.reply({"blocked": found[1]})
                told = self.beaten

    def running(self) -> dict[str, Any] | None:
        """The app's line at which the loop's thread is now."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        while frame and frame.f_code.co_filename != self.file:
            frame = frame.f_back
        return self.place(frame)

    def waiting(self) -> list[dict[str, Any]]:
        """The app's lines at which its handlers wait."""
        tasks = list(asyncio.all_tasks(self.loop)) if self.loop else []
        places = [self.place(self.suspended(task.get_coro())) for task in tasks]
        return [
            place for n, place in enumerate(places) if place and place not in places[:n]
        ]

    def suspended(self, coroutine: Any) -> FrameType | None:
        """The innermost frame of the app in a chain of awaits."""
        found = None
        while coroutine is not None:
            frame = getattr(coroutine, "cr_frame", None)
            if frame and frame.f_code.co_filename == self.file:
                found = frame
            coroutine = getattr(coroutine, "cr_await", None)
        return found

    def place(self, frame: FrameType | None) -> dict[str, Any] | None:
        if frame is None:
            return None
        code: CodeType = frame.f_code
        return {"line": frame.f_lineno, "function": code.co_name}

    def listen(self) -> None:
        number = 0
        try:
            while request := os.read(self.requests, 1):
                if request == b"!":
                    self.wake()
                    continue
                number += 1
                # Whoever finds this mark in the log has read all that stood before it.
                with contextlib.suppress(OSError):
                    os.write(self.log, MARK % number)
                late = time.monotonic() - self.beaten
                self.reply(
                    {
                        "report": {
                            "number": number,
                            "handlers": self.handlers(),
                            "beating": late < PATIENCE,
                            "waiting": self.waiting(),
                        }
                    }
                )
        finally:
            end()

    def reply(self, message: dict[str, Any]) -> None:
        os.write(self.replies, json.dumps(message).encode() + b"\n")


def end() -> None:
    """End this process and all that it started, at once."""
    for process in [*psutil.Process().children(recursive=True), *strays(HOME)]:
        with contextlib.suppress(psutil.Error):
            process.kill()
    os._exit(1)


def strays(home: str) -> list[psutil.Process]:
    """The processes that were started with this folder as their home, but for this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get("HOME") == home:
                found.append(process)
    return found


class Finder(MetaPathFinder):
    """Finds the student's module by its file, whatever name the file has."""

    def __init__(self, file: str) -> None:
        self.file = file
        stem = Path(file).stem
        free = stem.isidentifier() and stem not in sys.modules
        self.name = stem if free else "exercise"

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.file)


def take_streams() -> tuple[int, int, int]:
    """Keep the line to the parent to ourselves: what the file prints goes to the log."""
    requests, replies, log = os.dup(0), os.dup(1), os.dup(2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, replies, log


def adopt() -> None:
    """Make orphans children of this process, where the system can: none escapes its end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1)  # prctl(2), PR_SET_CHILD_SUBREAPER


def limit() -> None:
    """Bound what a student's code may use, where the system can."""
    if sys.platform == "win32":
        return
    import resource
    import signal

    # A file that grows too large is then an OSError in the file, not the end of it.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    wanted = {
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for what, most in wanted.items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def serve(watchman: Watchman, module: str, options: list[str]) -> None:
    """Run uvicorn's command line, and say the port as soon as it listens."""
    # Only here: a program that is a client is not to wait for it.
    import uvicorn
    import uvicorn.main

    startup = uvicorn.Server.startup

    async def watched(
        server: uvicorn.Server, sockets: list[socket.socket] | None = None
    ) -> None:
        await startup(server, sockets)
        watchman.handlers = lambda: len(server.server_state.tasks)
        # The log could say anything; this line is ours.
        watchman.reply({"port": server.servers[0].sockets[0].getsockname()[1]})
        watchman.guard()

    uvicorn.Server.startup = watched  # type: ignore[method-assign, assignment]
    bind = uvicorn.Config.bind_socket

    def bound(config: uvicorn.Config) -> socket.socket:
        # With workers or a reloader the servers are other processes, and this one
        # holds their socket.
        opened = bind(config)
        watchman.reply({"port": opened.getsockname()[1]})
        return opened

    uvicorn.Config.bind_socket = bound  # type: ignore[method-assign, assignment]
    uvicorn.main.main([f"{module}:app", *options])


class Tools:
    """What a program may be given; each tells the parent what is done with it."""

    def __init__(self, watchman: Watchman, seed: str) -> None:
        self.watchman = watchman
        self.source = random.Random(seed)
        self.sleepers: list[asyncio.Future[None]] = []
        watchman.wake = self.wake

    def show(self, value: Any) -> None:
        """Tell the parent anything that JSON can say."""
        self.watchman.reply({"shown": value})

    def draw(self) -> float:
        """Draw a number from 0 to 1."""
        drawn = self.source.random()
        self.watchman.reply({"drawn": drawn})
        return drawn

    async def sleep(self, seconds: float) -> None:
        """Wait until the parent says that the time is over."""
        seconds = float(seconds)
        sleeper = asyncio.get_running_loop().create_future()
        self.sleepers.append(sleeper)
        self.watchman.reply({"sleeps": seconds})
        await sleeper

    def wake(self) -> None:
        """End the oldest sleep; called from the watchman's thread."""
        while self.sleepers:
            sleeper = self.sleepers.pop(0)
            if not sleeper.done():
                sleeper.get_loop().call_soon_threadsafe(rouse, sleeper)
                return


def rouse(sleeper: "asyncio.Future[None]") -> None:
    # It may have been cancelled meanwhile.
    if not sleeper.done():
        sleeper.set_result(None)


def run(watchman: Watchman, module: str, arguments: list[str]) -> None:
    """Call a function of the file, and say how it ended."""
    name, url, seed, *names = arguments
    tools = Tools(watchman, seed)
    function = getattr(importlib.import_module(module), name)

    async def main() -> None:
        watchman.reply({"started": True})
        watchman.guard()
        try:
            result = function(url, *(getattr(tools, tool) for tool in names))
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            traceback.print_exc()
            watchman.reply({"ended": ending(error, watchman.file)})
        else:
            watchman.reply({"ended": {"error": "", "line": 0}})

    asyncio.run(main())


def ending(error: BaseException, file: str) -> dict[str, Any]:
    """What was raised, and the last line of the file that it came through."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    frames = list(traceback.walk_tb(error.__traceback__))
    lines = [line for frame, line in frames if frame.f_code.co_filename == file]
    said = "".join(traceback.format_exception_only(error)).strip()
    return {"error": said[:LONGEST_ERROR], "line": lines[-1] if lines else 0}


JOBS = {"serve": serve, "run": run}

if __name__ == "__main__":
    file, limited, job, *arguments = sys.argv[1:]
    adopt()
    if limited == "1":
        limit()
    watchman = Watchman(file, *take_streams())
    watchman.start()
    finder = Finder(file)
    sys.meta_path.insert(0, finder)
    JOBS[job](watchman, finder.name, arguments)
