"""The bench that the notebooks share: real servers, real clients, and a plain line.

    from lab import Conversation, serve

    server = serve("echo_server")

runs `examples/echo_server.py` under uvicorn in a process of its own, as a terminal would,
on a port that is free. The first line of a cell may be `%%serve NAME` instead: the rest of
the cell is then run the same way, and the server is called NAME from there on. Running a
cell again replaces its server; the end of the notebook, however it comes, ends them all.
"""

import atexit
import logging
import os
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.core.error import UsageError
from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from exercises.grader.clients import Conversation
from exercises.grader.serving import ServerFailed, ServerProcess, until

__all__ = ["Conversation", "Line", "NotServed", "axes", "dial", "serve", "until"]

PATIENCE = 5.0  # seconds a `Line` waits for bytes before it gives up

# On a new machine it says that it looks for fonts, in the middle of a lesson.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
# The look of all plots: as wide as the text, and colours that differ for every eye.
plt.style.use(["seaborn-v0_8-whitegrid", "tableau-colorblind10"])
plt.rcParams |= {"figure.figsize": (7, 3), "figure.facecolor": "white", "font.size": 10}

# What runs here talks to this machine only. A proxy would be asked for it all the same.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

_servers: dict[str, ServerProcess] = {}
_cells = tempfile.TemporaryDirectory(prefix="cells-")


class NotServed(Exception):
    """The app does not start; the message says where and why, and no more."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the student's own lines, not those of this file."""
        return [str(self)]


def serve(stem: str, *, name: str = "", **settings: Any) -> ServerProcess:
    """Run `examples/STEM.py` and return when it accepts connections.

    `settings` are those of `ServerProcess`. A second server of one example needs a `name`
    of its own; a server of the same name is replaced.
    """
    return _run(name or stem, ROOT / "examples" / f"{stem}.py", settings)


def _serve_cell(line: str, cell: str) -> None:
    """`%%serve NAME`: run the app in this cell, and call the server NAME."""
    name = line.strip()
    if not name.isidentifier():
        raise UsageError("a name for the server is missing, as in: %%serve broken")
    file = Path(_cells.name, f"{name}.py")
    # The first line is kept, so that the lines of an error count as those of the cell do.
    file.write_text(f"# %%serve {name}\n{cell}", encoding="utf-8")
    shell.user_ns.pop(name, None)
    shell.user_ns[name] = _run(name, file, {})


if shell := get_ipython():
    shell.register_magic_function(_serve_cell, "cell", "serve")


def _run(name: str, file: Path, settings: dict[str, Any]) -> ServerProcess:
    if earlier := _servers.pop(name, None):
        earlier.end()
    server = ServerProcess(file, **settings)
    try:
        _servers[name] = server.__enter__()
    except ServerFailed as failed:
        raise NotServed(_why(str(failed), server.file)) from None
    return server


def _why(log: str, file: Path) -> str:
    """The lines of the app itself in a traceback, and the error after them."""
    said, *frames = re.split(r'^(?=  File ")', log, flags=re.MULTILINE)
    if not frames:
        return said.strip()
    *_, error = re.split(r"^(?=\S)", frames[-1], maxsplit=1, flags=re.MULTILINE)
    frames[-1] = frames[-1].removesuffix(error)
    own = [frame for frame in frames if str(file) in frame]
    shown = f"{file.name} does not start.\n\n{''.join(own)}{error}"
    return shown.replace(str(file), file.name).strip()


@atexit.register
def _end_all() -> None:
    while _servers:
        _servers.popitem()[1].end()
    _cells.cleanup()


class Line:
    """A plain TCP connection: bytes out, bytes in, nothing that knows WebSockets."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._incoming = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, sent: bytes) -> None:
        """Send these bytes as they are."""
        self._socket.sendall(sent)

    def read(self, size: int = -1) -> bytes:
        """So many bytes; without a size, all that comes until the other side ends it."""
        return self._incoming.read(size)

    def read_head(self) -> bytes:
        """The head of an HTTP answer: everything up to the first empty line."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._incoming.readline()
            if not line:
                raise EOFError(f"the line ended in the middle of a head: {head!r}")
            head += line
        return head

    def close(self) -> None:
        """Hang up."""
        self._incoming.close()
        self._socket.close()


def dial(server: ServerProcess) -> Line:
    """Open a plain TCP connection to a server."""
    return Line(server.port)


def axes(x: str, y: str) -> Axes:
    """An empty plot whose axes say what they count and in which unit: `"time, s"`.

    `plt.show()` shows it. Its colours can be told apart by those who see fewer of them.
    """
    return plt.subplots(layout="constrained", subplot_kw={"xlabel": x, "ylabel": y})[1]
