"""What the tests of the lessons share: the example, its server, clients, a browser."""

import asyncio
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from exercises.grader.clients import Conversation
from exercises.grader.serving import ServerProcess, load
from exercises.grader.serving_here import LocalServer, serve_here

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
# asyncio warns when several messages are written to a socket within the moment in which its
# reset is noticed. That is nobody's mistake, and uvloop keeps quiet about it.
TROUBLE = re.compile(
    r"^(?!WARNING: socket\.send\(\) raised exception)(WARNING|ERROR|CRITICAL|Traceback).*",
    re.MULTILINE,
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "serve(**settings): settings of uvicorn.Config for this test's server"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite side by side; a part of it, which one looks at, as usual.

    `-n 0` runs all of it in one process.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    # A process that runs a share of it must not share that again.
    if whole and config.option.numprocesses is None and not hasattr(config, "workerinput"):
        # Much of a test is waiting: for a server to start, for a browser, for a deadline.
        config.option.numprocesses = 3 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the pages be tested last, and spread the answers over all the rest.

    The browser keeps its event loop to the end, and other tests are to have their own.
    Answers wait most of their time, and other tests work.
    """
    pages = [item for item in items if "browser" in getattr(item, "fixturenames", ())]
    answers = [item for item in items if item.path.stem == "test_exercises"]
    apart = {*pages, *answers}
    others = [item for item in items if item not in apart]
    if hasattr(config, "workerinput"):
        place = {
            item: number / len(group)
            for group in [answers, others]
            for number, item in enumerate(group)
        }
        others = sorted(place, key=place.__getitem__)
    else:
        # A notebook is not to be left in the middle.
        others += answers
    items[:] = others + pages


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def stem(request: pytest.FixtureRequest) -> str:
    """The lesson under test: `test_echo_server.py` tests `echo_server`."""
    return request.path.stem.removeprefix("test_")


@pytest.fixture
def example(stem: str) -> ModuleType:
    """The example as a fresh module: its constants may be set, its state is its own."""
    return load(EXAMPLES / f"{stem}.py")


@pytest.fixture
async def server(
    example: ModuleType, request: pytest.FixtureRequest
) -> AsyncIterator[LocalServer]:
    """The example on a real socket. Afterwards no task is left and the log is quiet.

    A test that provokes a line of the log on purpose removes it from `server.lines`.
    """
    marker = request.node.get_closest_marker("serve")
    before = asyncio.all_tasks()
    async with serve_here(example.app, **(marker.kwargs if marker else {})) as server:
        yield server
        assert await server.settled(), f"{server.handlers} handlers still run"
    left = asyncio.all_tasks() - before
    assert [task for task in left if not is_runner(task)] == []
    assert not TROUBLE.search(server.log), server.log


def is_runner(task: asyncio.Task[object]) -> bool:
    """Whether a task belongs to the test runner, and so not to the server."""
    return "anyio" in task.get_coro().cr_code.co_filename


@pytest.fixture
async def conversation(server: LocalServer) -> AsyncIterator[Conversation]:
    """Clients of `server`; they end before it does."""
    async with Conversation(server.url) as conversation:
        yield conversation


@pytest.fixture
def process(stem: str) -> Iterator[ServerProcess]:
    """The example in a process of its own, as `uvicorn` runs it in a terminal."""
    with ServerProcess(EXAMPLES / f"{stem}.py") as process:
        yield process


class Browser:
    """Tabs in a headless Chromium; what their consoles complain of stands in `errors`."""

    FLAGS: ClassVar = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-proxy-server",
    ]

    def __init__(self, context: Any) -> None:
        self.context = context
        self.errors: list[str] = []

    async def open(self, url: str) -> Any:
        """Open a page in a new tab; returns Playwright's `Page`."""
        tab = await self.context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("console", self.listen)
        await tab.goto(url)
        return tab

    def listen(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Any]:
    """Playwright's `Browser`; this process starts it for the first test that wants it."""
    # Chromium without windows first: a test takes half the time with it.
    names = ["chromium-headless-shell", "chromium", "chromium-browser"]
    names += ["google-chrome", "chrome", "msedge"]
    path = next(filter(None, map(shutil.which, names)), None)
    if not (path and importlib.util.find_spec("playwright")):
        why = "no Chromium on the PATH" if not path else "the package playwright is missing"
        if "CI" in os.environ and sys.platform == "linux":
            pytest.fail(f"{why}: in CI the pages must be tested")
        pytest.skip(f"{why}; see .ci/requirements.txt")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=path, args=Browser.FLAGS
        )
        yield chromium
        await chromium.close()


@pytest.fixture
async def browser(chromium: Any) -> AsyncIterator[Browser]:
    """A browser that remembers nothing. Afterwards its console is free of errors.

    A test that provokes an error in the console on purpose clears `browser.errors`.
    """
    context = await chromium.new_context()
    browser = Browser(context)
    yield browser
    await context.close()
    assert browser.errors == []
