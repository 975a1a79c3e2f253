"""A server that does nothing by itself: a check says how it treats each client that comes.

    async with Host(timeline) as host:
        program = start("follow", host.url)
        await until(lambda: host.waiting, DEADLINE)
        visit = host.waiting.popleft()
        await visit.accept()
        await visit.send({"type": "hello"})
        visit.cut()

It lives in the event loop of the check and records what is said in a timeline.
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections import deque
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from .timeline import Event, Kind, Timeline, shown

CLOSE_TIMEOUT = 1.0  # seconds for a client to answer a close frame

# A client that breaks the protocol is its author's business, and not for the log.
quiet = logging.Logger("exercises.host", logging.CRITICAL + 1)


class Visit:
    """One client that came, from its opening handshake on; made by `Host`."""

    def __init__(
        self, host: "Host", connection: ServerConnection, request: Request
    ) -> None:
        self.host = host
        self.connection = connection
        self.target = request.path
        self.path = urlsplit(request.path).path
        query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        self.query = {name: values[-1] for name, values in query.items()}
        self._decided: asyncio.Future[Response | None]
        self._decided = asyncio.get_running_loop().create_future()
        self._open = asyncio.Event()
        self.ended = False  # by the server

    def note(self, kind: Kind, text: str) -> Event:
        """Record something about this client."""
        return self.host.timeline.record(self.host.name, kind, text)

    def _decide(self, response: Response | None) -> None:
        if not self._decided.done():
            self._decided.set_result(response)

    async def accept(self) -> None:
        """Complete the opening handshake."""
        self.note(Kind.JOINED, f"joined {self.target}")
        self._decide(None)
        ended = asyncio.create_task(self.connection.wait_closed())
        opened = asyncio.create_task(self._open.wait())
        await asyncio.wait([opened, ended], return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        ended.cancel()

    def refuse(self, status: int) -> None:
        """Answer the opening handshake with an HTTP error."""
        self.note(Kind.REFUSED, f"{self.target} refused with HTTP {status}")
        # Gateways also send statuses that have no name in Python, such as 522.
        response = self.connection.respond(HTTPStatus.BAD_GATEWAY, "refused\n")
        response.status_code, response.reason_phrase = status, "Refused"
        self._decide(response)

    async def send(self, message: Any) -> None:
        """Send anything that JSON can say; a client that has gone shows in what follows."""
        text = json.dumps(message, ensure_ascii=False)
        self.note(Kind.RECEIVED, shown(text))
        with contextlib.suppress(ConnectionClosed):
            await self.connection.send(text)

    async def close(self, code: int, reason: str = "") -> None:
        """Close the connection politely."""
        said = f" {shown(reason)}" if reason else ""
        self.note(Kind.CLOSED, f"closed {code}{said}")
        self.ended = True
        await self.connection.close(code, reason)

    def cut(self) -> None:
        """Drop the connection without a close frame, also in the opening handshake."""
        when = "" if self._decided.done() else " in the opening handshake"
        self.note(Kind.LOST, f"lost the line{when}")
        self.end()

    def end(self) -> None:
        """Drop the connection."""
        self.ended = True
        self.connection.transport.abort()
        self._decide(None)

    async def stay(self) -> None:
        """What the `websockets` library runs for this client."""
        self._open.set()
        with contextlib.suppress(ConnectionClosed):
            # Reading is what answers the client's pings and notices its end.
            async for message in self.connection:
                self.note(Kind.SENT, shown(message))
        if self.connection.close_code and not self.ended:
            self.note(Kind.NOTE, f"closed the connection: {self.connection.close_code}")


class Host:
    """A server whose clients wait until a check has decided what becomes of them.

    Without `listening` it has a port, and refuses all connections until `listen` is called.
    """

    def __init__(
        self, timeline: Timeline, *, name: str = "client", listening: bool = True
    ) -> None:
        self.timeline = timeline
        self.name = name
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.socket.getsockname()[1]}"
        self.waiting: deque[Visit] = deque()
        self._listening = listening
        self._server: Server | None = None
        self._visits: dict[ServerConnection, Visit] = {}

    async def __aenter__(self) -> Self:
        if self._listening:
            await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
            for visit in self._visits.values():
                visit.end()
            await self._server.wait_closed()
        self.socket.close()

    async def listen(self) -> None:
        """Let clients come from now on."""
        self._server = await serve(
            self._stay,
            sock=self.socket,
            process_request=self._ask,
            open_timeout=None,
            close_timeout=CLOSE_TIMEOUT,
            ping_interval=None,
            compression=None,
            logger=quiet,
        )

    async def _ask(self, connection: ServerConnection, request: Request) -> Response | None:
        visit = self._visits[connection] = Visit(self, connection, request)
        self.waiting.append(visit)
        return await visit._decided

    async def _stay(self, connection: ServerConnection) -> None:
        await self._visits[connection].stay()
