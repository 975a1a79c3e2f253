"""Looks whether this machine can run the workbook, and says what to do if not."""

import asyncio
import importlib.metadata
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .clients import Conversation
from .course import EXERCISES, ROOT
from .outcomes import Failure
from .serving import ServerFailed, ServerProcess

OLDEST = (3, 11)
PORT = 8000  # where uvicorn listens if it is told nothing
PINNED = re.compile(
    r"^([\w-]+)(?:\[\w+\])?==([\w.]+)(?:; sys_platform != \"(\w+)\")?", re.M
)

ECHO = """
from fastapi import FastAPI, WebSocket

app = FastAPI()


@app.websocket("/")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()
"""


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is well, and what to do if it is not."""

    what: str
    well: bool
    remedy: str = ""


def findings() -> Iterator[Finding]:
    """Look at everything, one after the other."""
    version = ".".join(map(str, sys.version_info[:3]))
    needed = ".".join(map(str, OLDEST))
    yield Finding(
        f"Python {version}",
        sys.version_info >= OLDEST,
        f"install Python {needed} or newer and make a new environment",
    )
    yield packages()
    yield loopback()
    yield port()
    yield proxies()
    yield folder()
    yield conversation()


def packages() -> Finding:
    """The packages of requirements.txt, in their versions."""
    wanted = PINNED.findall((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    wrong = []
    for name, version, without in wanted:
        if without == sys.platform:
            continue
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found != version:
            wrong.append(f"{name} is {found}, not {version}")
    return Finding(
        "packages" + (f": {'; '.join(wrong)}" if wrong else ""),
        not wrong,
        "python -m pip install -r requirements.txt, in the activated environment",
    )


def loopback() -> Finding:
    """A connection from this machine to itself."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
    except OSError as error:
        remedy = "let a firewall or security program allow connections to 127.0.0.1"
        return Finding(f"no connection to 127.0.0.1: {error}", False, remedy)
    return Finding("connections to 127.0.0.1", True)


def port() -> Finding:
    """The port that the commands of the workbook use."""
    try:
        socket.create_server(("127.0.0.1", PORT)).close()
    except OSError:
        remedy = "end the server that runs there, or give uvicorn --port 8001"
        return Finding(f"port {PORT} is taken", False, remedy)
    return Finding(f"port {PORT} is free", True)


def proxies() -> Finding:
    """Proxies, which would be asked for connections to this machine."""
    names = [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "ws_proxy",
        "wss_proxy",
        "socks_proxy",
    ]
    found = sorted({name for name in os.environ if name.lower() in names})
    exempt = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    # The grader itself uses no proxy; other clients on this machine might.
    well = not found or "127.0.0.1" in exempt or exempt == "*"
    what = f"a proxy is set in {', '.join(found)}" if found else "no proxy in the way"
    return Finding(what, well, "set NO_PROXY=127.0.0.1,localhost")


def folder() -> Finding:
    """The folder that answers and progress are written to."""
    try:
        tempfile.TemporaryFile(dir=EXERCISES).close()
    except OSError as error:
        remedy = "copy the workbook to a folder of your own"
        return Finding(f"cannot write to {EXERCISES}: {error}", False, remedy)
    return Finding("the folder of the exercises can be written to", True)


def conversation() -> Finding:
    """A real server, and a word with it."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "doctor.py"
        file.write_text(ECHO, encoding="utf-8")
        try:
            with ServerProcess(file, limited=True) as server:
                asyncio.run(talk(server))
        except (Failure, ServerFailed, OSError) as error:
            remedy = "send this output to whoever gave you the workbook"
            return Finding(f"a server and a client: {error}", False, remedy)
    return Finding("a server starts, and a client can talk to it", True)


async def talk(server: ServerProcess) -> None:
    async with Conversation(server.url) as conversation:
        client = await conversation.join("doctor")
        await client.send("how are you?")
        await client.expect("how are you?")
        await client.expect_close(1000)
