"""The pytest plugin that turns functions into graded checks.

A check is an asynchronous test with a mark and a sentence:

    @pytest.mark.task(2, points=3)
    @pytest.mark.likely(silence="a message that arrived was not answered")
    async def test_a_name(conversation, word):
        \"\"\"what must be true\"\"\"

It may use the fixtures `server` (the student's file in a process of its own, fresh for each
check), `conversation` (clients of it), `word` (random texts from the printed seed) and
`secrets` (the random values of `TOKEN` and `SECRET_KEY` in the server's environment). The
mark `server` gives the server more variables, or options of uvicorn:

    pytestmark = pytest.mark.server(environment={"INTERVAL": "0.05"})

It can also ask for more servers than one, and for something beside them: of a class whose
instances have an `environment` for all servers and an `end()`.

    pytestmark = pytest.mark.server(number=2, beside=RedisBeside)

These are the fixtures `servers` and `beside`.

Where the student's file is no server but a program, the fixture `start` runs a function of
it, and what stands in the fixture `timeline` is shown when the check fails. Checks that
share what they start have the file itself as the fixture `answer`; of one that is a test,
the mark `offers` names the servers, so that they are known before the first check runs.

Checks of a task are skipped when an earlier task failed. Other tests are left alone.
"""

import contextlib
import functools
import random
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from .clients import Conversation
from .outcomes import LIKELY, NOT_AWAITED, NOT_BEGUN, NOT_STARTED, Failure, Outcome
from .programs import Program
from .redis_beside import SetUpIncomplete
from .results import Result, Status
from .serving import NEVER_AWAITED, ServerFailed, ServerProcess, patience
from .timeline import Timeline

CHECK_DEADLINE = 20.0  # seconds for one check, after which it is ended
SECRETS = ["TOKEN", "SECRET_KEY"]  # random variables of every server's environment
STILL_TO_DO = "is still to do"  # what every stub says when it ends
AHEAD = 2  # servers that start while a check runs, so that no check waits for its own

FAILED = pytest.StashKey[dict[Path, int]]()


class Hooks:
    """What this plugin tells others."""

    @pytest.hookspec
    def pytest_check_result(self, result: Result) -> None:
        """Called with the result of each check, as soon as there is one."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("exercises", "graded exercises")
    group.addoption("--answer", type=Path, help="the file to check, if not exercise.py")
    group.addoption("--seed", type=int, help="the seed of names and texts on the wire")
    group.addoption("--task", type=int, help="check this task alone")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "task(number, points): a graded check of a task")
    config.addinivalue_line(
        "markers",
        "server(environment, options, number, beside): what is started for a check",
    )
    config.addinivalue_line(
        "markers", "offers(right, broken): the servers on which a student's test is tried"
    )
    config.addinivalue_line("markers", "likely(**outcomes): the likely cause of an outcome")
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(10**7)
    config.stash[FAILED] = {}
    config.pluginmanager.register(Bench(config), "exercises-bench")


def pytest_report_header(config: pytest.Config) -> str:
    return f"exercises: --seed {config.option.seed}"


def task_of(item: pytest.Item) -> int | None:
    """The number of the task that an item checks."""
    marker = item.get_closest_marker("task")
    return int(marker.args[0]) if marker else None


def answer_for(item: pytest.Item | pytest.Module) -> Path:
    """The student's file that an item, or a module of items, checks."""
    return (item.config.option.answer or item.path.with_name("exercise.py")).absolute()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put tasks in order, whatever the order of the functions; leave out other tasks."""
    items.sort(
        key=lambda item: (str(item.path), task_of(item)) if task_of(item) else ("", 0)
    )
    if config.option.task:
        config.hook.pytest_deselected(
            items=[item for item in items if task_of(item) != config.option.task]
        )
        items[:] = [item for item in items if task_of(item) == config.option.task]


def pytest_itemcollected(item: pytest.Item) -> None:
    if task_of(item) and isinstance(item, pytest.Function):
        item.obj = limited(item.obj)


def limited(check: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Give a check a deadline beyond those of each expectation; let it end nothing else."""

    @functools.wraps(check)
    async def within_limits(*args: Any, **kwargs: Any) -> None:
        try:
            async with patience(CHECK_DEADLINE) as deadline:
                await check(*args, **kwargs)
        except TimeoutError:
            if not deadline.expired():
                raise
            wanted = f"the whole conversation takes less than {CHECK_DEADLINE:g} s"
            raise Failure(Outcome.SILENCE, wanted, "it was not over by then") from None
        except (SystemExit, pytest.exit.Exception) as error:
            # It would end the whole run, and lose what other checks could have earned.
            raise RuntimeError(f"the check raised {error!r}") from error

    return within_limits


def task_before(item: pytest.Item) -> int | None:
    """The task that has to pass before an item is checked, and failed."""
    task, failed = task_of(item), item.config.stash[FAILED].get(item.path)
    return failed if task and failed and failed < task else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if before := task_before(item):
        pytest.skip(f"first task {before}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    task = task_of(item)
    if task is None or (report.when != "call" and report.passed):
        return report
    result = judge(item, call, task, report)
    item.config.hook.pytest_check_result(result=result)
    if result.status in (Status.FAILED, Status.FAULT):
        failed = item.config.stash[FAILED]
        failed[item.path] = min(task, failed.get(item.path, task))
        # Also for what pytest calls skipped, so that it is a failure everywhere.
        report.outcome = "failed"
        # The student's words instead of pytest's traceback of the grader.
        report.longrepr = result.text()
    return report


def judge(
    item: pytest.Item, call: pytest.CallInfo[None], task: int, report: pytest.TestReport
) -> Result:
    """Make a result of what happened to a check."""
    marker = item.get_closest_marker("task")
    assert marker
    assert isinstance(item, pytest.Function)
    result = Result(
        stem=item.path.parent.name,
        task=task,
        name=item.name,
        sentence=(item.function.__doc__ or item.name).strip().splitlines()[0],
        points=marker.kwargs["points"],
        status=Status.PASSED,
        seconds=round(call.duration, 3),
    )
    if report.passed:
        result.earned = result.points
    elif before := task_before(item):
        result.status, result.got = Status.SKIPPED, f"first task {before}"
    else:
        # Also if it was skipped: no check may skip itself, for then it proves nothing.
        assert call.excinfo
        explain(item, result, call.excinfo.value, report.longreprtext)
    return result


def explain(
    item: pytest.Function, result: Result, error: BaseException, traceback: str
) -> None:
    """Say why a check failed: the outcome, the conversation, the line, the likely cause."""
    fixtures: dict[str, Any] = item.funcargs
    servers: list[ServerProcess] = fixtures.get("servers", [])
    timeline = fixtures.get("timeline") or Timeline()
    result.status, here = Status.FAILED, None
    if isinstance(error, Failure):
        outcome, here = error.outcome, error.here
        result.expected, result.got = error.expected, error.got
        result.line, result.log, result.likely = error.line, error.log, error.likely
    elif isinstance(error, ServerFailed):
        outcome = Outcome.SERVER_CRASHED
        lines = str(error).strip().splitlines()
        result.expected, result.got = "the server starts", lines[0]
        result.log = "\n".join(lines[1:][-6:])
        result.likely = f"{NOT_STARTED}; the server looks for a variable called `app`"
    elif isinstance(error, SetUpIncomplete):
        outcome = Outcome.GRADER_FAULT
        result.status, result.got = Status.FAULT, str(error)
        result.likely = "not your code: this machine lacks what the check needs"
    else:
        outcome = Outcome.GRADER_FAULT
        result.status = Status.FAULT
        result.got = f"{type(error).__name__}: {error}"
        result.log = traceback
    for server in servers if isinstance(error, Failure) else []:
        judged = with_servers_word(outcome, server, result)
        result.log = "\n".join([*result.log.splitlines(), *server.never_awaited[:1]])
        # The first that has more to say than that it waits has said it all.
        if judged is not outcome:
            outcome = judged
            break
    result.outcome = outcome
    result.timeline = timeline.text(here=here, headers=True)
    kept = [event for event in timeline.around(here) if event]
    result.events = [{**asdict(event), "here": event is here} for event in kept]
    result.likely = likely(item, result, error)
    seed = item.config.option.seed
    result.again = (
        f"python -m exercises check {result.stem} --task {result.task} --seed {seed}"
    )


def likely(item: pytest.Function, result: Result, error: BaseException) -> str:
    """What is known of the cause, and then the advice of the check, if it has any."""
    known = []
    if isinstance(error, Failure):
        if STILL_TO_DO in result.got + result.log:
            return NOT_BEGUN
        known += [NOT_AWAITED] if NEVER_AWAITED in result.log else []
        # By now the outcome may be another one than that to which the clue belongs.
        known += [error.clue] if error.clue and error.outcome == result.outcome else []
    marker = item.get_closest_marker("likely")
    key = result.outcome.replace(" ", "_").replace("event_loop", "loop")
    known += [marker.kwargs[key]] if marker and key in marker.kwargs else []
    return result.likely or " · ".join(known) or LIKELY[Outcome(result.outcome)]


def with_servers_word(outcome: Outcome, server: ServerProcess, result: Result) -> Outcome:
    """Look at the server itself: whether it crashed, is blocked, or waits."""
    report = server.report()
    crash = server.crashed_at
    if server.exit_code is not None:
        result.line = str(crash or "")
        if server.excess:
            result.got = f"the server was ended: it used {server.excess}"
            result.likely = "something is kept or started again and again, without a bound"
        else:
            result.got = f"the server's process ended with exit code {server.exit_code}"
            result.log = "\n".join(server.log.strip().splitlines()[-4:])
        return Outcome.SERVER_CRASHED
    if server.blocked and outcome is not Outcome.CLOSED_EARLY:
        result.line = f"{server.blocked[-1]}    stops the event loop here"
        return Outcome.LOOP_BLOCKED
    # A wrong message has a cause of its own, whatever crashed before it; HTTP 500 has not.
    refused = result.got.endswith("refused with HTTP 500")
    if crash and (refused or outcome is not Outcome.WRONG_MESSAGE):
        result.line = str(crash)
        trouble = server.trouble[-1:]
        result.log = "".join(trouble) if trouble != [result.got] else ""
        return Outcome.SERVER_CRASHED
    if outcome is Outcome.SILENCE and report.waiting:
        lines = [f"{place}    waits here" for place in report.waiting]
        lines = [line for line in lines if line not in result.line]
        result.line = "\n".join([*result.line.splitlines(), *lines])
    return outcome


class Beside(Protocol):
    """Something that runs beside the servers of a check."""

    environment: Mapping[str, str]

    def end(self) -> None:
        """Leave nothing behind."""


@dataclass
class Cast:
    """All that was started for one check."""

    servers: list[ServerProcess]
    beside: Beside | None

    def end(self) -> None:
        """End it, whatever state it is in."""
        for server in self.servers:
            server.end()
        if self.beside:
            self.beside.end()


class Bench:
    """Has the servers of the next checks started while one is checked."""

    def __init__(self, config: pytest.Config) -> None:
        self.ahead: list[tuple[pytest.Item, Future[Cast]]] = []
        # A thread, for what runs beside the servers may take time to be ready for them.
        self.starter = ThreadPoolExecutor(1)
        self.left: list[pytest.Item] = []
        # Where the first failure ends it all, that would be in vain for each wrong answer.
        self.most_ahead = 0 if config.option.maxfail == 1 else AHEAD
        source = random.Random(config.option.seed)
        self.drawn = {name: source.randbytes(24).hex() for name in SECRETS}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.left = [item for item in session.items if task_of(item)]

    def start(self, item: pytest.Item) -> Cast:
        """Start the servers for a check, and what is beside them, as its marks want it."""
        marker = item.get_closest_marker("server")
        wanted = marker.kwargs if marker else {}
        beside = wanted["beside"]() if "beside" in wanted else None
        environment = self.drawn | wanted.get("environment", {})
        cast = Cast([], beside)
        for _ in range(wanted.get("number", 1)):
            server = ServerProcess(
                answer_for(item),
                options=wanted.get("options", ()),
                environment=environment | (beside.environment if beside else {}),
                limited=True,
            )
            cast.servers.append(server)
        return cast

    def take(self, item: pytest.Item) -> Cast:
        """Return what was started for a check, and start it for the checks that follow."""
        # Checks that were skipped have left servers that nobody needs.
        while self.ahead and self.ahead[0][0] is not item:
            self.strike(self.ahead.pop(0)[1])
        while self.left and self.left[0] is not item:
            self.left.pop(0)
        for following in self.left[len(self.ahead) : self.most_ahead + 1]:
            self.ahead.append((following, self.starter.submit(self.start, following)))
        self.left.pop(0)
        return self.ahead.pop(0)[1].result()

    def strike(self, started: Future[Cast]) -> None:
        """End what was started for a check that does not take place."""
        # If it could not be started, that is nobody's business.
        with contextlib.suppress(SetUpIncomplete, OSError):
            started.result().end()

    def pytest_sessionfinish(self) -> None:
        for _, started in self.ahead:
            self.strike(started)
        self.starter.shutdown()

    @pytest.fixture(scope="session")
    @classmethod
    def anyio_backend(cls) -> str:
        """Run the checks on asyncio, as uvicorn does."""
        return "asyncio"

    @pytest.fixture
    def secrets(self) -> dict[str, str]:
        """What the server finds in its environment, by name: `TOKEN` and `SECRET_KEY`."""
        return self.drawn

    @pytest.fixture
    def cast(self, request: pytest.FixtureRequest) -> Iterator[Cast]:
        """All that was started for the check."""
        cast = self.take(request.node)
        try:
            yield cast
        finally:
            cast.end()

    @pytest.fixture
    def servers(self, cast: Cast) -> list[ServerProcess]:
        """The student's servers, ready; one, if the marks ask for no more."""
        for server in cast.servers:
            server.wait_ready()
        return cast.servers

    @pytest.fixture
    def server(self, servers: list[ServerProcess]) -> ServerProcess:
        """The student's server, ready; the first one if there are several."""
        return servers[0]

    @pytest.fixture
    def beside(self, cast: Cast) -> Beside:
        """What the marks want beside the servers."""
        assert cast.beside, "the mark `server` asks for nothing beside"
        return cast.beside


@pytest.fixture(scope="module")
def answer(request: pytest.FixtureRequest) -> Path:
    """The student's file."""
    return answer_for(request.node)


@pytest.fixture
def timeline() -> Timeline:
    """What is shown of a check that fails."""
    return Timeline()


@pytest.fixture
async def conversation(
    server: ServerProcess, timeline: Timeline
) -> AsyncIterator[Conversation]:
    """Clients of the student's server."""
    async with Conversation(server.url, timeline) as conversation:
        yield conversation


@pytest.fixture
def start(request: pytest.FixtureRequest, answer: Path) -> Iterator[Callable[..., Program]]:
    """Start a function of the student's file as a program; it ends with the check."""
    seed = f"{request.config.option.seed} {request.node.name}"
    with contextlib.ExitStack() as running:

        def start(function: str, url: str, **options: Any) -> Program:
            program = Program(answer, function, url, seed=seed, limited=True, **options)
            return running.enter_context(program)

        yield start


@pytest.fixture
def word(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Make random texts: nobody can write the answers down beforehand."""
    source = random.Random(f"{request.config.option.seed} {request.node.name}")
    letters = string.ascii_lowercase + string.digits

    def draw() -> str:
        return "-".join("".join(source.choices(letters, k=4)) for _ in range(2))

    return draw
