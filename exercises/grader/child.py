"""The process a server lives in: uvicorn's command line, and a watchman beside it.

`serving.py` runs it as `python -I child.py FILE LIMITED OPTION…`, where FILE is the app's
file, LIMITED is 1 for a student's code, and the options are uvicorn's own. The three
standard streams are the line to the parent:

- in: a line asks for a report; its end means that the parent is gone, however it went,
  and everything in this process ends too.
- out: one JSON object a line, `{"port": …}`, `{"blocked": place}` or `{"report": …}`.
- err: the log, whatever the app prints, and a mark for each report.

Only the standard library, psutil and uvicorn are imported here, before the app is.
"""

import asyncio
import contextlib
import ctypes
import importlib.util
import json
import os
import socket
import sys
import threading
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import psutil
import uvicorn
import uvicorn.main

BEAT = 0.05  # seconds between two signs of life of the event loop
MARK = b"\x1e%d\x1e"
PATIENCE = 0.25  # seconds without one, after which the loop counts as blocked

HOME = os.environ.get("HOME", "")  # the server's folder, and nobody else's
CPU_SECONDS, FILE_BYTES, OPEN_FILES = 60, 16 * 1024 * 1024, 1024


class Watchman:
    """Looks at the event loop from a thread, so that it sees when the loop is blocked."""

    def __init__(self, file: str, requests: int, replies: int, log: int) -> None:
        self.file, self.requests, self.replies, self.log = file, requests, replies, log
        self.server: uvicorn.Server | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.beaten = time.monotonic()

    def start(self) -> None:
        """Listen to the parent from now on; watch the loop from the start of uvicorn."""
        threading.Thread(target=self.listen, daemon=True).start()
        startup = uvicorn.Server.startup

        async def watched(
            server: uvicorn.Server, sockets: list[socket.socket] | None = None
        ) -> None:
            await startup(server, sockets)
            self.server, self.loop = server, asyncio.get_running_loop()
            self.beat()
            # The log could say anything; this line is ours.
            self.reply({"port": server.servers[0].sockets[0].getsockname()[1]})
            threading.Thread(target=self.watch, daemon=True).start()

        uvicorn.Server.startup = watched  # type: ignore[method-assign, assignment]
        bind = uvicorn.Config.bind_socket

        def bound(config: uvicorn.Config) -> socket.socket:
            # With workers or a reloader the servers are other processes, and this one
            # holds their socket.
            opened = bind(config)
            self.reply({"port": opened.getsockname()[1]})
            return opened

        uvicorn.Config.bind_socket = bound  # type: ignore[method-assign, assignment]

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
            while os.read(self.requests, 1):
                number += 1
                # Whoever finds this mark in the log has read all that stood before it.
                with contextlib.suppress(OSError):
                    os.write(self.log, MARK % number)
                handlers = len(self.server.server_state.tasks) if self.server else 0
                late = time.monotonic() - self.beaten
                self.reply(
                    {
                        "report": {
                            "number": number,
                            "handlers": handlers,
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
    """Finds the app's module by its file, whatever name the file has."""

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
    """Keep the line to the parent to ourselves: what the app prints goes to the log."""
    requests, replies, log = os.dup(0), os.dup(1), os.dup(2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, replies, log


def limit() -> None:
    """Bound what a student's server may use, where the system can."""
    if sys.platform == "win32":
        return
    if sys.platform == "linux":
        # Orphans become children of this process, so that none escapes its end: prctl(2),
        # PR_SET_CHILD_SUBREAPER.
        ctypes.CDLL(None).prctl(36, 1)
    import resource
    import signal

    # A file that grows too large is then an OSError in the app, not the end of it.
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


if __name__ == "__main__":
    file, limited, *options = sys.argv[1:]
    if limited == "1":
        limit()
    Watchman(file, *take_streams()).start()
    finder = Finder(file)
    sys.meta_path.insert(0, finder)
    uvicorn.main.main([f"{finder.name}:app", *options])
