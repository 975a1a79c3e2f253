"""Runs our own apps in the caller's process: for tests that need many short-lived servers.

    async with serve_here(load(EXAMPLES / "echo_server.py").app) as server:
        conversation = Conversation(server.url)

A student's file is never loaded here: `serving.py` gives it a process of its own.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from .serving import SETTLE_DEADLINE, START_DEADLINE, ServerFailed, until


class _Guest(uvicorn.Server):
    """A uvicorn that leaves Ctrl-C to pytest and Jupyter, and stops when it is told to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told = asyncio.Event()

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:
            self.should_exit = True

    async def main_loop(self) -> None:
        await self.told.wait()


class LocalServer:
    """An app served from the caller's own event loop; made by `serve_here`."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        # asyncio sets this for its own sockets. Without it, a small answer may wait 40 ms.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        self.http_url = f"http://127.0.0.1:{self.port}"
        self.lines: list[str] = []
        settings = {"ws": "websockets-sansio", "log_config": None} | settings
        self.uvicorn = _Guest(uvicorn.Config(app, **settings))

    @property
    def log(self) -> str:
        """Everything that was logged while it ran."""
        return "\n".join(self.lines)

    @property
    def handlers(self) -> int:
        """How many handlers run now."""
        return len(self.uvicorn.server_state.tasks)

    async def settled(self, deadline: float = SETTLE_DEADLINE) -> bool:
        """Wait until no handler runs any more, or the deadline is over."""
        return await until(lambda: self.handlers == 0, deadline)


@contextlib.asynccontextmanager
async def serve_here(app: Any, **settings: Any) -> AsyncIterator[LocalServer]:
    """Serve `app` in this event loop; `settings` are those of `uvicorn.Config`."""
    server = LocalServer(app, **settings)
    logger, handler = logging.getLogger(), _Lines(server.lines)
    logger.addHandler(handler)
    levels = {name: logging.getLogger(name).level for name in ("uvicorn", "")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.INFO)
    serving = asyncio.create_task(server.uvicorn.serve(sockets=[server.socket]))
    try:
        await until(lambda: server.uvicorn.started or serving.done(), START_DEADLINE)
        if serving.done():
            raise ServerFailed(server.log)
        yield server
    finally:
        server.uvicorn.told.set()
        server.uvicorn.config.timeout_graceful_shutdown = 1
        await asyncio.wait([serving])
        server.socket.close()
        logger.removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines
        self.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
