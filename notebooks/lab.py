"""What the notebooks share: servers, people who talk to them, and pictures of it.

    from lab import room, serve

    server = serve("chat_server")
    async with room(server, "ana", "ben") as (ana, ben):
        await ana.send("hello")
        print(await ben.heard())
    server.picture()

`serve` runs `examples/chat_server.py` under uvicorn in a process of its own, on a port
that is free. If the first line of a cell is `%%serve NAME`, the rest of the cell is served
in the same way, and the server is called NAME. To run a cell again replaces its server. All
servers end with the notebook.
"""

import ast
import asyncio
import atexit
import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace as changed
from itertools import groupby
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, Self

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.core.error import UsageError
from matplotlib.axes import Axes
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from exercises.grader import serving
from exercises.grader.clients import (
    Client,
    Conversation,
    Response,
    http_client,
    read_json,
)
from exercises.grader.outcomes import Failure
from exercises.grader.redis_beside import RedisBeside
from exercises.grader.serving import ServerFailed, ServerProcess, until
from exercises.grader.timeline import Drawing, Event, Kind, Timeline

PATIENCE = 15.0  # seconds to wait for what should come at once
TURNS = 20  # pings that a server answers before nothing more is expected of it
PAUSE = 0.002  # seconds between two of them, as some servers pause for a moment
STUCK = 1.0  # seconds without a text, after which a flood is given up
LONG = Random(3).randbytes(32 * 1024).hex()  # a text of 64 KiB that nothing can shrink
BROWSERS = ["chromium-headless-shell", "chromium", "chromium-browser"]
BROWSERS += ["google-chrome", "chrome", "msedge"]
# A container does not allow the browser's sandbox, and the only page is our own.
BROWSER_OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
BROWSER_OPTIONS += ["--no-proxy-server", "--disable-background-networking"]
HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

# On a new machine it says that it looks for fonts, in the middle of a lesson.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
# The look of all plots: as wide as the text, and colours that differ for every eye.
plt.style.use(["seaborn-v0_8-whitegrid", "tableau-colorblind10"])
plt.rcParams |= {"figure.figsize": (7, 3), "figure.facecolor": "white", "font.size": 10}

# What runs here talks to this machine only. A proxy would be asked for it all the same.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


# Pictures


def axes(x: str, y: str) -> Axes:
    """An empty plot whose axes say what they count and in which unit: `"time, s"`.

    `plt.show()` shows it. Its colours can be told apart by those who see fewer of them.
    """
    return plt.subplots(layout="constrained", subplot_kw={"xlabel": x, "ylabel": y})[1]


def bars(counts: Mapping[str, float], x: str) -> None:
    """Show a number for each name, as a bar."""
    plot = axes(x, "")
    plot.bar_label(plot.barh(list(counts), list(counts.values())), padding=4)
    plot.margins(x=0.1)
    plot.grid(visible=False)
    plot.invert_yaxis()
    plt.show()


def canvases(pictures: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Show strokes, the later ones on top of the earlier ones: a canvas for each name."""
    plots = plt.subplots(1, len(pictures), layout="constrained", squeeze=False)[1]
    for plot, (name, strokes) in zip(plots.flat, pictures.items(), strict=True):
        for number, stroke in enumerate(strokes):
            x, y = zip(*stroke["points"], strict=True)
            look = {"color": stroke["color"], "lw": stroke["width"]}
            plot.plot(x, y, zorder=number + 2, **look)
        plot.set(title=name, xlim=(0, 100), ylim=(100, 0), aspect="equal")
    plt.show()


class Recorded:
    """Something with a timeline that can be looked at: a server, or a room."""

    timeline: Timeline

    def picture(self, mark: str = "", **which: Any) -> Drawing:
        """Draw who said what, from top to bottom.

        The first event with the text `mark` is red; `mark="ana · closed"` finds the end of
        Ana's connection. `which` is what `events` takes.
        """
        shown = self.events(**which)
        return shown.svg(here=_find(shown, mark))

    def story(self, mark: str = "", **which: Any) -> str:
        """Tell the same in lines of text."""
        shown = self.events(**which)
        return shown.text(here=_find(shown, mark), times=False)

    def events(
        self,
        people: Sequence[str] = (),
        replace: Mapping[str, str] | None = None,
        since: str = "",
    ) -> Timeline:
        """What happened, in an order that is the same in each run.

        `people` leaves out all others; `replace` has regular expressions, and what to show
        instead of what differs from run to run; `since` leaves out all that was before the
        first event with this text, such as who joined.
        """
        kept = [e for e in self.timeline if not people or e.who in people]
        for pattern, text in (replace or {}).items():
            kept = [changed(e, text=re.sub(pattern, text, e.text)) for e in kept]
        lanes, events = list(dict.fromkeys(e.who for e in kept)), []
        # Nobody can know which of several clients hears something first.
        for comes_in, group in groupby(kept, _comes_in):
            same = list(group)
            events += sorted(same, key=lambda e: lanes.index(e.who)) if comes_in else same
        first = _find(Timeline(events), since)
        return Timeline(events[events.index(first) :] if first else events)


def _comes_in(event: Event) -> bool:
    ended = event.kind is Kind.LOST and event.text.startswith("closed")
    return ended or event.kind in (Kind.RECEIVED, Kind.CLOSED)


def _find(timeline: Timeline, mark: str) -> Event | None:
    lines = ((f"{e.who} {e.arrow} {e.text}", e) for e in timeline)
    return next(event for line, event in lines if mark in line) if mark else None


# Servers


class Server(Recorded, ServerProcess):
    """A server in a process of its own; made by `serve`."""

    def __init__(self, name: str, file: Path, **settings: Any) -> None:
        super().__init__(file, **settings)
        self.name, self.timeline = name, Timeline()

    async def logs(self, text: str, times: int = 1) -> None:
        """Wait until a text is in the log, or is there so many times."""
        await _wait(lambda: self.log.count(text) >= times, f"{text!r} in the log")

    async def runs(self, endpoints: int) -> None:
        """Wait until so many endpoints run, one for each connection."""
        await _wait(lambda: self.report().handlers == endpoints, f"{endpoints} endpoints")

    def waiting(self) -> list[str]:
        """The lines of the app at which its tasks wait now, each once."""
        return sorted({place.code for place in self.report().waiting})

    async def waits_at(self, part: str) -> None:
        """Wait until a task of the app waits at a line with this part."""
        await _wait(lambda: part in str(self.waiting()), f"a task that waits at {part!r}")

    def memory(self) -> float:
        """The memory that it holds now, in MB."""
        return serving.memory(self.pid) / 1e6


class NotServed(Exception):
    """The app does not start; the message says where and why, and no more."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the student's own lines, not those of this file."""
        return [str(self)]


_servers: dict[str, Server] = {}
_cells = tempfile.TemporaryDirectory(prefix="cells-", ignore_cleanup_errors=True)


def serve(
    what: str | Server,
    *,
    name: str = "",
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    without: str = "",
    **constants: Any,
) -> Server:
    """Run `examples/WHAT.py` and return when it accepts connections.

    `options` are those of uvicorn. `serve("chat_server", BACKLOG=20)` runs a copy with
    another constant, `without="await self.catch_up()"` a copy that lacks this line. A
    server in place of WHAT means its file once more. A server replaces an earlier one of
    its name, so two servers of one file need two names.
    """
    if isinstance(what, Server):
        name, file = name or what.name, what.file
    else:
        name, file = name or what, ROOT / "examples" / f"{what}.py"
    if constants or without:
        file = _copy(file, name, without, constants)
    return _run(name, file, options=options, environment=environment)


def _copy(file: Path, name: str, without: str, constants: Mapping[str, Any]) -> Path:
    text = file.read_text(encoding="utf-8")
    lines, changes = text.splitlines(), dict(constants)
    for node in ast.parse(text).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id in changes:
            lines[node.lineno - 1] = f"{target.id} = {changes.pop(target.id)!r}"
    assert not changes, f"{file.name} has no {', '.join(changes)}"
    if without:
        (number,) = [n for n, line in enumerate(lines) if line.strip() == without]
        lines[number] = lines[number].replace(without, "pass")
    copy = Path(_cells.name, re.sub(r"\W", "_", name), file.name)
    copy.parent.mkdir(exist_ok=True)
    copy.write_text("\n".join(lines) + "\n", encoding="utf-8")
    page = file.with_suffix(".html")
    if page.exists() and file != copy:
        shutil.copy(page, copy.parent)
    return copy


def _serve_cell(line: str, cell: str) -> None:
    """`%%serve NAME`: run the app in this cell, and call the server NAME."""
    name = line.strip()
    if not name.isidentifier():
        raise UsageError("a name for the server is missing, as in: %%serve broken")
    file = Path(_cells.name, f"{name}.py")
    # The first line is kept, so that the lines of an error count as those of the cell do.
    file.write_text(f"# %%serve {name}\n{cell}", encoding="utf-8")
    shell.user_ns.pop(name, None)
    shell.user_ns[name] = _run(name, file)


if shell := get_ipython():
    shell.register_magic_function(_serve_cell, "cell", "serve")


def _run(name: str, file: Path, **settings: Any) -> Server:
    if earlier := _servers.pop(name, None):
        earlier.end()
    server = Server(name, file, **settings)
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


async def _wait(holds: Callable[[], bool], what: str) -> None:
    assert await until(holds, PATIENCE), f"still missing after {PATIENCE:g} s: {what}"


def load(stem: str) -> ModuleType:
    """`examples/STEM.py` as a module, to try a part of it alone."""
    return serving.load(ROOT / "examples" / f"{stem}.py")


# People


class Person:
    """Somebody with a connection to a server; made by `room` or `Room.join`.

    It also has all that `Client` of `exercises/grader/clients.py` has, such as `send`,
    `leave`, `receive`, `expect`, `expect_close`, `read_again`, `code` and `reason`.
    """

    def __init__(self, client: Client, room: "Room") -> None:
        self.client, self.room = client, room
        self.reading, self.one_in = True, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    async def heard(self) -> list[Any]:
        """All that this person has heard since the last time; JSON is unpacked.

        It waits until the server has said what it can say at once. For what takes longer,
        such as a database or an interval, there is `wait_for`.
        """
        await self.room.settle()
        return [await self.client.receive() for _ in range(len(self.client._inbox))]

    async def wait_for(self, text: str) -> list[Any]:
        """Wait for a message with this text; return all that was heard, up to it."""
        heard: list[Any] = []
        while not heard or text not in str(heard[-1]):
            heard.append(await self.client.receive(f"something with {text!r}", PATIENCE))
        return heard

    async def hear(self, number: int) -> list[Any]:
        """Wait until so many messages have come, and return them."""
        return [await self.client.receive(within=PATIENCE) for _ in range(number)]

    async def ended(self) -> str:
        """Wait for the end of the connection; return it as `closed 1003 'text only'`."""
        await _wait(lambda: self.code is not None, f"the end of {self.name}'s connection")
        return ending(self.code, self.reason)

    async def cut(self) -> None:
        """Cut the line: the server gets a reset, and no close frame."""
        self.client.vanish()

    def remark(self, text: str) -> None:
        """Write something into the picture, at the line of this person."""
        self.client.note(Kind.NOTE, text)

    async def send_at_once(self, *texts: str) -> None:
        """Send many texts so that the server receives them all in the same moment."""
        self.client.note(Kind.SENT, f"{len(texts)} texts at once")
        line = self.client.connection
        for text in texts:
            line.protocol.send_text(text.encode())
        line.transport.write(b"".join(line.protocol.data_to_send()))

    async def stop_reading(self) -> None:
        """Stay connected and read nothing from now on."""
        await self.room.settle()
        self.reading = False
        self.client.stop_reading()

    async def read_slowly(self, one_in: int) -> None:
        """From now on read one text while others hear so many of a `flood`."""
        await self.stop_reading()
        self.one_in = one_in

    async def keep_up(self, texts: int) -> None:
        """Of so many texts of a flood, read what a slow reader reads."""
        wanted = texts // self.one_in if self.one_in else 0
        transport = self.client.connection.transport
        with suppress(Failure):  # which the end of the connection raises
            while len(self.times(Kind.RECEIVED)) < wanted:
                transport.resume_reading()
                await self.client.receive("a text", PATIENCE)
                transport.pause_reading()

    async def read_to_the_end(self) -> str:
        """Read what has piled up, until the connection ends, and return how it ended."""
        self.client.read_again()
        return await self.ended()

    def times(self, kind: Kind) -> list[float]:
        """When this person sent or received: seconds since the conversation began."""
        mine = (self.client.name, kind)
        return [e.at for e in self.client.timeline if (e.who, e.kind) == mine]

    async def ping(self) -> bool:
        """Give the server a turn, and hear what it had said before; whether it answers."""
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(STUCK):
                await (await self.client.connection.ping())
                await asyncio.sleep(PAUSE)
                return True
        return False


class Room(Recorded):
    """People who talk to one server; made by `room`."""

    def __init__(self, server: Server, names: Sequence[str], path: str) -> None:
        self.server, self.names, self.path = server, names, path
        self.timeline, self.people = Timeline(), list[Person]()

    async def __aenter__(self) -> Self:
        self.conversation = Conversation(self.server.url, self.timeline)
        self.server.timeline = self.timeline
        for name in self.names:
            await self.join(name)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.conversation.__aexit__()

    def __iter__(self) -> Iterator[Person]:
        return iter(self.people)

    async def join(self, name: str, path: str = "", **options: Any) -> Person:
        """Let one more in; `options` are `headers` and those of `websockets.connect`."""
        path = (path or self.path).replace("{name}", name)
        client = await self.conversation.join(name, path, **options)
        self.people.append(Person(client, self))
        return self.people[-1]

    async def refused(self, name: str, path: str, **options: Any) -> str:
        """Try to join, and return how the handshake was refused; a picture shows it."""
        try:
            await self.conversation.join(name, path, **options)
        except Failure as failure:
            return failure.here.text if failure.here else failure.got
        raise AssertionError(f"{name} was not refused")

    async def post(self, name: str, path: str, content: Any) -> Response:
        """Post JSON over HTTP, and record it; the answer has a `status` and a `content`."""
        statuses = range(200, 600)
        return await self.conversation.post(name, path, content, *statuses, within=PATIENCE)

    async def settle(self) -> None:
        """Wait until everybody has heard what the server can say by now."""
        asked, quiet = [person for person in self if person.reading], 0
        end = time.monotonic() + PATIENCE
        # Each pong takes the server a turn of its event loop, and comes after all that it
        # has sent before. After so many turns without news, there will be none.
        while quiet < TURNS:
            before = len(self.timeline.events)
            await asyncio.sleep(0)  # a turn of our own, for those who have just ended
            answers = await asyncio.gather(*(person.ping() for person in asked))
            asked = [
                person for person, answer in zip(asked, answers, strict=True) if answer
            ]
            quiet = quiet + 1 if len(self.timeline.events) == before else 0
            assert time.monotonic() < end, "the server goes on talking: use wait_for"


def room(
    server: Server, *names: str, path: str = "/ws/chat", timeline: Timeline | None = None
) -> Room:
    """Let people join a server, one after the other, until the end of the `async with`.

    `{name}` in the path is the name of the one who joins. Two rooms that have one timeline
    are in one picture.
    """
    opened = Room(server, names, path)
    opened.timeline = opened.timeline if timeline is None else timeline
    return opened


async def flood(speaker: Person, listener: Person, texts: int) -> int:
    """Let one send long texts, each when the other has heard the one before.

    It ends early when the listener does not hear a text, and returns how many were heard.
    The long texts are not in what `heard` returns afterwards.
    """
    for number in range(1, texts + 1):
        with suppress(Failure):  # which the end of the connection raises
            await speaker.send(LONG)
        if not await _hears_long(listener):
            return number - 1
        for person in speaker.room:
            _take_long(person)
            await person.keep_up(number)
    return texts


async def _hears_long(listener: Person) -> bool:
    loop, turns = asyncio.get_running_loop(), 0
    end = loop.time() + STUCK
    while turns < TURNS or loop.time() < end:
        await listener.ping()
        if _take_long(listener):
            return True
        if listener.code is not None:
            return False
        turns += 1
    return False


def _take_long(person: Person) -> bool:
    """Take the long texts out of what a person has heard; whether there were any."""
    inbox = person.client._inbox
    others = [each for each in inbox if LONG not in str(each[0])]
    found = len(inbox) > len(others)
    inbox.clear()
    inbox.extend(others)
    return found


async def throw(speaker: Person, message: str | bytes) -> str:
    """Send something, and say what becomes of it.

    `lost`: the speaker's connection has ended. `passed on`: somebody else in the room has
    heard something. `silence`: nobody has. Otherwise it is the text that the speaker, and
    nobody else, has heard.
    """
    room = speaker.room
    await room.settle()
    for person in room:
        person.client._inbox.clear()
    await speaker.send(message)
    await room.settle()
    if speaker.code is not None:
        return "lost"
    if any(person.client._inbox for person in room if person is not speaker):
        return "passed on"
    inbox = speaker.client._inbox
    return str(inbox[0][0]) if inbox else "silence"


async def round_trips(
    speaker: Person, until: Awaitable[Any]
) -> tuple[list[float], list[float]]:
    """Say hello to an echo each 20 ms, until something is over.

    Returns when each hello was said, and how long its echo took, in seconds.
    """
    over = asyncio.ensure_future(until)
    while not over.done():
        await speaker.send("hello")
        await asyncio.sleep(0.02)
    await over
    said = speaker.times(Kind.SENT)
    await _wait(lambda: len(speaker.times(Kind.RECEIVED)) == len(said), "an echo")
    heard = speaker.times(Kind.RECEIVED)
    took = [later - at for at, later in zip(said, heard, strict=True)]
    return [at - said[0] for at in said], took


async def answered(
    person: Person, until: Awaitable[Any], times: int = 10
) -> dict[str, bool]:
    """Whether so many pages, and so many pings, are answered before something is over."""

    async def pages() -> None:
        async with http_client(person.room.server.http_url, timeout=None) as client:
            for _ in range(times):
                await client.get("/")

    async def pings() -> None:
        for _ in range(times):
            await (await person.client.connection.ping())

    over = asyncio.ensure_future(until)
    asking = {"pages": asyncio.create_task(pages()), "pings": asyncio.create_task(pings())}
    both = asyncio.ensure_future(asyncio.wait(asking.values()))
    await asyncio.wait([over, both], return_when=asyncio.FIRST_COMPLETED)
    answers = {what: task.done() and not over.done() for what, task in asking.items()}
    for task in asking.values():
        task.cancel()
    await asyncio.gather(*asking.values(), over, return_exceptions=True)
    return answers


async def ask(
    server: Server, path: str, message: str | bytes | None = None, **options: Any
) -> Any:
    """Connect, perhaps send a message, and return what comes first.

    That may be a text, JSON, `refused with HTTP 403` or `closed 4001 'wrong token'`.
    """
    client = connect(server.url + path, **options)
    try:
        async with asyncio.timeout(PATIENCE), client as connection:
            if message is not None:
                await connection.send(message)
            return read_json(await connection.recv())
    except InvalidStatus as refusal:
        return f"refused with HTTP {refusal.response.status_code}"
    except ConnectionClosed as closed:
        return ending(closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else ending(1006)


async def browse(server: Server, text: str, times: int = 1) -> bool:
    """Open a server's page in a browser without a window, until a text is in the log.

    Its profile is new, and it ends then. False if no browser here has done it in time.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return False

    def done() -> bool:
        return server.log.count(text) >= times

    quiet: dict[str, Any] = {"stdout": asyncio.subprocess.DEVNULL}
    quiet |= {"stderr": asyncio.subprocess.DEVNULL}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [*BROWSER_OPTIONS, f"--user-data-dir={profile}", server.http_url]
        process = await asyncio.create_subprocess_exec(browser, *options, **quiet)
        await until(lambda: done() or process.returncode is not None, PATIENCE)
        if process.returncode is None:
            process.terminate()
        await process.wait()
    return done()


def start_redis() -> RedisBeside:
    """A Redis or Valkey of the notebook's own, with `kill` and `start`; it ends with it."""
    redis = RedisBeside()
    atexit.register(redis.end)
    return redis


def ending(code: int, reason: str = "") -> str:
    """The end of a connection in words."""
    return f"closed {code:d}" + (f" {reason!r}" if reason else "")


def cutter(module: ModuleType) -> Callable[[], None]:
    """A function that cuts the line which the module has last opened with `connect`."""
    lines = []

    class Remembered(connect):
        async def __aenter__(self) -> ClientConnection:
            lines.append(await super().__aenter__())
            return lines[-1]

    module.connect = Remembered
    return lambda: lines[-1].transport.abort()


# Bytes


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

    def write_frame(self, opcode: int, content: bytes) -> None:
        """Send a frame with at most 125 bytes, masked with zeros."""
        head = bytes([0b1_000_0000 | opcode, 0b1_0000000 | len(content), 0, 0, 0, 0])
        self.write(head + content)

    def read_frame(self) -> tuple[int, bytes]:
        """The opcode and the content of a frame with at most 125 bytes."""
        opcode, length = self.read(2)
        return opcode & 0b1111, self.read(length)

    def close(self) -> None:
        """Hang up."""
        self._incoming.close()
        self._socket.close()


def dial(server: Server, path: str = "") -> Line:
    """Open a plain TCP connection to a server; with a path, shake hands as in lesson 1."""
    line = Line(server.port)
    if path:
        line.write(HANDSHAKE % path.encode())
        assert line.read_head().startswith(b"HTTP/1.1 101 ")
    return line


# Databases


class Reading:
    """Another program that reads a SQLite file of a server; made by `reading`."""

    def __init__(self, server: Server, file: str) -> None:
        self.server = server
        self._database = sqlite3.connect(server.home / file, isolation_level=None)

    def __enter__(self) -> Self:
        # SQLite takes the lock with the first query.
        self._database.executescript("BEGIN; SELECT * FROM sqlite_schema")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def find(self, query: str) -> Any:
        """The value that a query finds now."""
        [value] = self._database.execute(query).fetchone()
        self.server.timeline.record("report", Kind.NOTE, f"finds: {value}")
        return value


def reading(server: Server, file: str) -> Reading:
    """Let a program read a SQLite file of a server, until the end of the `with`.

    Until then nobody can commit a change. In a picture the program is called `report`.
    """
    return Reading(server, file)


def stored(server: Server, file: str, query: str) -> Any:
    """The value that a query finds in a SQLite file, as soon as nobody writes to it."""
    database = sqlite3.connect(server.home / file, PATIENCE, isolation_level=None)
    with closing(database):
        database.execute("BEGIN IMMEDIATE")
        return database.execute(query).fetchone()[0]


# Results of the benchmarks

Row = dict[str, Any]


def measured(name: str) -> dict[str, Any]:
    """What `tests/benchmarks/NAME.py` has measured, as it is stored."""
    file = ROOT / "notebooks" / "measured" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def rows(name: str, **wanted: Any) -> list[Row]:
    """The rows of a result in which these columns have these values."""
    return [row for row in measured(name)["rows"] if wanted.items() <= row.items()]


def medians(found: Sequence[Row], measure: str, by: str = "server") -> dict[Any, float]:
    """The middle number of a measure, for each row in which it could be measured."""
    return {row[by]: row[measure]["median"] for row in found if row.get(measure)}


def table(found: Sequence[Row], *measures: str, label: str = "server") -> None:
    """Print a line for each row: the middle of each measure, and its extremes."""
    width = max(len(str(row[label])) for row in found)
    for row in found:
        parts = [_spread(row.get(measure)) for measure in measures]
        print(" ".join([f"{row[label]!s:{width}}", *parts]).rstrip())


def _spread(numbers: Mapping[str, float] | None) -> str:
    if numbers is None:
        return f"{'-':>8}".ljust(32)
    texts = [
        f"{number:,.0f}" if number >= 100 else f"{number:.2f}"
        for number in (numbers["median"], numbers["low"], numbers["high"])
    ]
    return "{:>8} ({} to {})".format(*texts).ljust(32)
