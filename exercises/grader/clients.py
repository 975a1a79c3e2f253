"""Clients that talk to a server, politely or not, and record every message.

    async with Conversation(server.url) as conversation:
        ana = await conversation.join("ana", "/ws/echo")
        await ana.send("hello")
        await ana.expect("Echo: hello")
        await ana.leave()

Some servers are told over HTTP what they are to say over WebSocket. That is recorded, too:

        response = await conversation.post("till", "/pizzas", {"topping": "olives"}, 201)
        response.expect({"number": 1, "topping": "olives"})

Every client reads in the background, as a browser does, so that no server ever waits for
a test. The exception is one that was asked to stop reading.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from .outcomes import NO_REASON, NOT_ACCEPTED, NOT_ANSWERED, Failure, Outcome
from .timeline import Event, Kind, Timeline, printable, shown

if TYPE_CHECKING:
    # Most conversations need no HTTP, and it is a tenth of what a check imports.
    import httpx2

DEADLINE = 3.0  # seconds to wait for what should come at once
OPEN_DEADLINE = 6.0  # seconds for an opening handshake, also one of fifty at a time
SMALL_BUFFER = 4096  # bytes a client that does not read lets pile up on its side
READING_BUFFER = 1024 * 1024  # bytes, about what a client usually has
LONGEST_HEADER = 40  # characters of a header that are shown

Message = str | bytes
# What a check may ask for: text, bytes, or anything JSON can say.
Expected = str | bytes | dict[str, Any] | list[Any]


def http_client(base_url: str = "", **options: Any) -> "httpx2.AsyncClient":
    """A client for plain HTTP with servers on this machine; it asks no proxy.

    Certificates are not loaded: that takes longer than all requests of a test.
    """
    import httpx2

    return httpx2.AsyncClient(base_url=base_url, trust_env=False, verify=False, **options)


class Conversation:
    """Any number of clients of one server, and the timeline of what they said and heard."""

    def __init__(self, url: str, timeline: Timeline | None = None) -> None:
        self.url = url
        self.timeline = timeline if timeline is not None else Timeline()
        self.clients: list[Client] = []
        self._http: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(client.end() for client in self.clients))
        if self._http:
            await self._http.aclose()

    async def join(
        self,
        name: str,
        path: str = "/",
        *,
        reads: bool = True,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "Client":
        """Open a connection; `options` are those of `websockets.connect`.

        With `reads=False` the client never reads a byte after the opening handshake, and
        answers no ping. Fails if the server refuses the handshake.
        """
        client = Client(name, self.timeline)
        try:
            await client.open(self.url + path, reads, headers or {}, options)
        except InvalidStatus as refusal:
            status = refusal.response.status_code
            text = f"refused with HTTP {status}"
            here = client.note(Kind.REFUSED, text, sent_along(headers))
            raise Failure(
                Outcome.CLOSED_EARLY,
                f"{name} may connect to {path}",
                f"the opening handshake was refused with HTTP {status}",
                here,
                clue=NOT_ACCEPTED,
            ) from None
        except TimeoutError:
            raise Failure(
                Outcome.SILENCE,
                f"{name} may connect to {path}",
                f"no answer to the opening handshake within {OPEN_DEADLINE:g} s",
                client.note(Kind.NOTE, "… still in the opening handshake"),
                clue=NOT_ANSWERED,
            ) from None
        except (OSError, EOFError, WebSocketException) as error:
            raise Failure(
                Outcome.CLOSED_EARLY,
                f"{name} may connect to {path}",
                f"no connection: {error or type(error).__name__}",
                client.note(Kind.NOTE, "no connection"),
            ) from None
        self.clients.append(client)
        return client

    async def expect_refusal(
        self, name: str, path: str, status: int = 403, **options: Any
    ) -> None:
        """Expect that the opening handshake is answered with an HTTP error."""
        wanted = f"the opening handshake of {name} to {path} is refused: HTTP {status}"
        try:
            client = await self.join(name, path, **options)
        except Failure as failure:
            if failure.got.endswith(f"refused with HTTP {status}"):
                return
            silent = failure.outcome is Outcome.SILENCE
            outcome = Outcome.SILENCE if silent else Outcome.WRONG_MESSAGE
            raise Failure(outcome, wanted, failure.got, failure.here) from None
        raise Failure(Outcome.UNEXPECTED_MESSAGE, wanted, "it was accepted", client.joined)

    async def post(
        self,
        name: str,
        path: str,
        content: Expected,
        *statuses: int,
        within: float = DEADLINE,
    ) -> "Response":
        """Post text, bytes, or anything else as JSON; the answer is 200, or one of these.

        Fails with the outcomes of a client: an answer that does not come is silence, a
        connection that breaks is closed early, and a status of 500 says that it crashed.
        """
        import httpx2

        statuses = statuses or (200,)
        raw = content
        if not isinstance(raw, str | bytes):
            raw = json.dumps(content, ensure_ascii=False)
        asked = f"POST {path} {shown(raw)}"
        wanted = f"{name} ← {' or '.join(map(str, statuses))} to {asked}"
        self.timeline.record(name, Kind.SENT, asked)
        self._http = self._http or http_client(
            headers={"Content-Type": "application/json"}, timeout=None
        )
        url = "http" + self.url.removeprefix("ws") + path
        try:
            async with asyncio.timeout(within):
                answer = await self._http.post(url, content=raw)
        except TimeoutError:
            here = self.timeline.record(name, Kind.NOTE, "… still waiting for the answer")
            got = f"no answer to the POST within {within:g} s"
            raise Failure(Outcome.SILENCE, wanted, got, here) from None
        except httpx2.HTTPError as error:
            here = self.timeline.record(name, Kind.LOST, "no answer")
            got = f"no answer: {error or type(error).__name__}"
            raise Failure(Outcome.CLOSED_EARLY, wanted, got, here) from None
        text = f"{answer.status_code} {shown(answer.text)}"
        here = self.timeline.record(name, Kind.RECEIVED, text)
        if answer.status_code not in statuses:
            crashed = answer.status_code == 500
            outcome = Outcome.SERVER_CRASHED if crashed else Outcome.WRONG_MESSAGE
            raise Failure(outcome, wanted, f"{name} ← {text}", here)
        return Response(answer.status_code, read_json(answer.text), here)

    def expect_order(self, *heard: tuple["Client", Message]) -> None:
        """Expect that these messages, which were all heard, came in this order."""
        events = [client.heard(message) for client, message in heard]
        for first, second in pairwise(events):
            if first.at > second.at:
                raise Failure(
                    Outcome.UNEXPECTED_MESSAGE,
                    f"{first.who} ← {first.text} before {second.who} ← {second.text}",
                    "they came the other way round",
                    second,
                )

    def said(self, *kinds: Kind) -> list[Event]:
        """The events of some kinds, in order."""
        return [event for event in self.timeline if event.kind in kinds]


@dataclass(frozen=True)
class Response:
    """What came back over HTTP: JSON if it is, else text; made by `Conversation.post`."""

    status: int
    content: Any
    here: Event

    def expect(self, content: dict[str, Any] | list[Any]) -> None:
        """It must be this JSON."""
        if not same(self.content, content):
            who = self.here.who
            text = shown(json.dumps(content, ensure_ascii=False))
            wanted, got = f"{who} ← {self.status} {text}", f"{who} ← {self.here.text}"
            raise Failure(Outcome.WRONG_MESSAGE, wanted, got, self.here)


class Client:
    """One connection of somebody with a name; made by `Conversation.join`."""

    def __init__(self, name: str, timeline: Timeline) -> None:
        self.name = name
        self.timeline = timeline
        self.joined: Event | None = None
        self.code: int | None = None
        self.reason = ""
        self._connection: ClientConnection | None = None
        self._inbox: deque[tuple[Message, Event]] = deque()
        self._news = asyncio.Event()
        self._closed: Event | None = None
        self._reader: asyncio.Task[None] | None = None
        self._pushing: list[asyncio.Task[None]] = []

    async def open(
        self, url: str, reads: bool, headers: Mapping[str, str], options: dict[str, Any]
    ) -> None:
        """Shake hands, and read in the background unless told not to."""
        usual: dict[str, Any] = {
            "additional_headers": headers,
            "open_timeout": OPEN_DEADLINE,
            "close_timeout": DEADLINE,
            "max_size": None,
            "proxy": None,
            # A text is the same without, and much sooner there.
            "compression": None,
        }
        options = usual | options
        if not reads:
            # Nothing may take in what the server sends: no queue, no buffer.
            quiet: dict[str, Any] = {"max_queue": 1, "ping_interval": None}
            options = quiet | options | {"sock": small_socket(url)}
        self._connection = await connect(url, **options)
        text = f"joined /{url.split('/', 3)[-1]:.60}"
        self.joined = self.note(Kind.JOINED, text, sent_along(headers))
        if reads:
            self._reader = asyncio.create_task(self._read())
        else:
            self.stop_reading()

    @property
    def connection(self) -> ClientConnection:
        """The client of the `websockets` library underneath."""
        assert self._connection, "join first"
        return self._connection

    def note(self, kind: Kind, text: str, headers: str = "") -> Event:
        """Record something about this client."""
        return self.timeline.record(self.name, kind, text, headers)

    async def _read(self) -> None:
        try:
            async for message in self.connection:
                event = self.note(Kind.RECEIVED, shown(message))
                self._inbox.append((message, event))
                self._news.set()
        except ConnectionClosed:
            pass
        finally:
            closed = self.connection.protocol.close_rcvd
            # RFC 6455, section 7.1.5: 1006 stands for an end without a close frame.
            self.code = closed.code if closed else 1006
            self.reason = closed.reason if closed else ""
            why = f" {shown(self.reason)}" if self.reason else ""
            why = why if closed else ", no close frame"
            if self._closed is None:
                kind = Kind.CLOSED if closed else Kind.LOST
                self._closed = self.note(kind, f"closed {self.code}{why}")
            self._news.set()

    async def send(self, message: Expected) -> None:
        """Send text, bytes, or anything else as JSON."""
        raw = message if isinstance(message, str | bytes) else json.dumps(message)
        here = self.note(Kind.SENT, shown(raw))
        try:
            async with asyncio.timeout(DEADLINE):
                await self.connection.send(raw)
        except ConnectionClosed:
            if self._reader:
                await asyncio.wait([self._reader], timeout=DEADLINE)
            wanted = f"{self.name} may send {shown(raw)}"
            raise Failure(Outcome.CLOSED_EARLY, wanted, self._ending(), here) from None
        except TimeoutError:
            wanted = f"{self.name} may send {shown(raw)}"
            got = f"the server did not take it within {DEADLINE:g} s"
            raise Failure(Outcome.SILENCE, wanted, got, here) from None

    def push(self, message: Message, times: int) -> "asyncio.Task[None]":
        """Send a message many times without looking whether the server takes it.

        The returned task ends when the server has taken them all, or the connection ends.
        """
        self.note(Kind.SENT, f"{times} × {shown(message)}")
        task = asyncio.create_task(self._push(message, times))
        self._pushing.append(task)
        return task

    async def _push(self, message: Message, times: int) -> None:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(times):
                await self.connection.send(message)
                # Sending small messages never waits; the others want their turn.
                await asyncio.sleep(0)

    def send_at_once(self, *texts: str) -> None:
        """Send texts in one piece, so that many reach the server in the same moment."""
        self.note(Kind.SENT, f"{len(texts)} texts at once")
        for text in texts:
            self.connection.protocol.send_text(text.encode())
        self.connection.transport.write(b"".join(self.connection.protocol.data_to_send()))

    def announce(self, size: int) -> None:
        """Send no more than the head of a text frame of so many bytes."""
        self.note(Kind.SENT, f"the head of a frame of {size} bytes")
        # RFC 6455, section 5.2: FIN and opcode 1; mask bit and 127, which stands for a
        # length in the next eight bytes; a masking key of zeros.
        head = b"\x81\xff" + struct.pack("!Q", size) + bytes(4)
        self.connection.transport.write(head)

    async def receive(self, wanted: str = "a message", within: float = DEADLINE) -> Any:
        """The next message: JSON if it is, else text or bytes. `wanted` says what for."""
        message, _ = await self._next(f"{self.name} ← {wanted}", within)
        return read_json(message)

    async def hears(self, within: float = DEADLINE) -> bool:
        """Take the next message, whatever it is; false if the connection ended instead."""
        await self._wait(f"{self.name} ← anything, or the end", within)
        if self._inbox:
            self._inbox.popleft()
            return True
        return False

    def heard(self, message: Message) -> Event:
        """The event of a message that this client has received."""
        mine = (self.name, Kind.RECEIVED, shown(message))
        return next(e for e in self.timeline if (e.who, e.kind, e.text) == mine)

    async def hears_within(
        self, seconds: float, message: Message, but: Message | None = None
    ) -> bool:
        """Whether the next message comes in time; if it does, it must be this one.

        Messages like `but` may come before it and do not count.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news_or_end()
        if not (self._inbox or self._closed):
            self.note(Kind.NOTE, f"nothing for {seconds:g} s")
            return False
        await self.expect(message, but=but)
        return True

    async def expect(
        self,
        expected: Expected,
        within: float = DEADLINE,
        *,
        after: float = 0.0,
        but: Message | None = None,
    ) -> None:
        """The next message must be this one; lists and dictionaries are compared as JSON.

        To expect that somebody hears *nothing*, let something follow that must be heard,
        and expect that: whatever came before it is then the wrong message. `after` is the
        number of seconds that must have passed since this client last sent something.
        Messages like `but` may come before it and do not count.
        """
        plain = isinstance(expected, str | bytes)
        text: Any = expected if plain else json.dumps(expected, ensure_ascii=False)
        wanted = f"{self.name} ← {shown(text)}"
        message, event = await self._next(wanted, within)
        while but is not None and message == but:
            message, event = await self._next(wanted, within)
        if not same(message if plain else read_json(message), expected):
            got = f"{self.name} ← {event.text}"
            raise Failure(Outcome.WRONG_MESSAGE, wanted, got, event)
        if after:
            sent = [
                e.at for e in self.timeline if (e.who, e.kind) == (self.name, Kind.SENT)
            ]
            passed = event.at - sent[-1]
            if passed < after:
                wanted += f" after {after:g} s or more"
                got = f"it came after {passed:.3f} s"
                raise Failure(Outcome.UNEXPECTED_MESSAGE, wanted, got, event)

    async def expect_close(
        self,
        code: int,
        reason: str | None = None,
        *,
        with_reason: bool = False,
        within: float = DEADLINE,
    ) -> None:
        """The connection must be closed now, with this code and, if given, this reason.

        `with_reason` asks for any reason, as long as there is one.
        """
        wanted = f"{self.name}'s connection is closed with code {code}"
        wanted += f" and reason {json.dumps(reason)}" if reason is not None else ""
        wanted += " and a reason" if with_reason else ""
        await self._wait(wanted, within)
        if self._inbox:
            message, event = self._inbox.popleft()
            raise Failure(
                Outcome.UNEXPECTED_MESSAGE,
                wanted,
                f"{self.name} ← {shown(message)}",
                event,
            )
        right = self.code == code and reason in (None, self.reason)
        if not right or (with_reason and not self.reason):
            outcome = Outcome.CLOSED_EARLY if self.code == 1006 else Outcome.WRONG_MESSAGE
            clue = NO_REASON if right else ""
            raise Failure(outcome, wanted, self._ending(), self._closed, clue=clue)

    async def _next(self, wanted: str, within: float) -> tuple[Message, Event]:
        await self._wait(wanted, within)
        if not self._inbox:
            raise Failure(Outcome.CLOSED_EARLY, wanted, self._ending(), self._closed)
        return self._inbox.popleft()

    async def _news_or_end(self) -> None:
        while not self._inbox and not self._closed:
            self._news.clear()
            await self._news.wait()

    async def _wait(self, wanted: str, within: float) -> None:
        """Wait until there is a message, or there can be no more."""
        if self._inbox:
            return  # Of thousands that have come, each would set up a time limit.
        try:
            async with asyncio.timeout(within):
                await self._news_or_end()
        except TimeoutError:
            here = self.note(Kind.NOTE, "… still waiting")
            got = f"nothing within {within:g} s; the connection is open"
            raise Failure(Outcome.SILENCE, wanted, got, here) from None

    def _ending(self) -> str:
        if self.code == 1006:
            return "the connection ended without a close frame (1006)"
        return f"the connection was closed with {self.code} {json.dumps(self.reason)}"

    async def leave(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection politely and wait until the server has agreed."""
        self.note(Kind.SENT, f"close {code}" + (f" {shown(reason)}" if reason else ""))
        await self.connection.close(code, reason)
        if self._reader:
            await asyncio.wait([self._reader], timeout=DEADLINE)

    def vanish(self) -> None:
        """Cut the line: the server gets a reset instead of a close frame."""
        if self._closed:
            return
        self._closed = self.note(Kind.LOST, "vanished (connection reset)")
        raw = self.connection.transport.get_extra_info("socket")
        # Lingering for zero seconds makes the system send RST instead of FIN.
        linger = struct.pack("ii" if hasattr(socket, "AF_UNIX") else "hh", 1, 0)
        # The system may know already that the connection has ended.
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.transport.abort()

    def stop_reading(self) -> None:
        """Read nothing more, and so answer no ping: what comes piles up at the server."""
        self.connection.transport.pause_reading()
        self.note(Kind.NOTE, "stopped reading")

    def read_again(self) -> None:
        """Read what has piled up, and all that follows."""
        self.note(Kind.NOTE, "reads again")
        # With the small buffer that it joined with, what has piled up would crawl in.
        line = self.connection.transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READING_BUFFER)
        self.connection.transport.resume_reading()
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())

    async def end(self) -> None:
        """Drop the connection without waiting for the server."""
        if self._connection and self._closed is None:
            self._closed = self.note(Kind.NOTE, "… open to the end")
        if self._connection:
            self._connection.transport.abort()
        tasks = [*self._pushing, *([self._reader] if self._reader else [])]
        if tasks:
            await asyncio.wait(tasks)
        if self._connection:
            await self._connection.wait_closed()


def sent_along(headers: Mapping[str, str] | None) -> str:
    """The headers of a handshake in a line of text, each one cut if it is long."""
    lines = [f"{name}: {printable(value)}" for name, value in (headers or {}).items()]
    most = LONGEST_HEADER
    return ", ".join(line if len(line) <= most else f"{line[:most]}…" for line in lines)


def read_json(message: Message) -> Any:
    """What a message says as JSON; the message itself if it is none."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(message)
    return message


def same(heard: Any, expected: Any) -> bool:
    """Whether two values are the same JSON, which tells `true` from `1`."""
    match heard, expected:
        case bool(), _:
            return heard is expected
        case _, bool():
            return False
        case list(), list():
            pairs = zip(heard, expected, strict=False)
            return len(heard) == len(expected) and all(same(*pair) for pair in pairs)
        case dict(), dict():
            return heard.keys() == expected.keys() and all(
                same(heard[key], expected[key]) for key in expected
            )
    return bool(heard == expected)


def small_socket(url: str) -> socket.socket:
    """A connected socket whose receive buffer is as small as the system allows."""
    address = url.split("/")[2]
    host, port = address.rsplit(":", 1)
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    try:
        raw.connect((host, int(port)))
    except OSError:
        raw.close()
        raise
    raw.setblocking(False)
    return raw
