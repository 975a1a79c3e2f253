"""The checks of the pizzeria: a till that orders, a baker who locks, tabs that listen."""

import asyncio
import contextlib
import json
import sqlite3
from urllib.parse import quote

import pytest

from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.serving import SETTLE_DEADLINE, until
from exercises.grader.timeline import Kind, shown

ANSWER = 4.0  # seconds to wait for an answer that should come at once
CROWD = 12.0  # seconds to wait for it when many ask at the same time
BUSY = 1.0  # seconds that the baker waits for a lock of the server
PAUSE = 0.05  # seconds between two pings of somebody who watches
PINGS = 6  # pings while the baker reads
PILE_UP = 0.2  # seconds for a crowd of requests to reach the database
PRESSED = 20  # people who press the same button
ORDERED = 8  # pizzas that are ordered together
STATES = ["ordered", "oven", "road", "eaten"]
# An answer that has to wait for a lock comes later than the checks wait for it.
pytestmark = pytest.mark.server(environment={"LOCK_TIMEOUT": "10"})


class Till:
    """Whoever orders pizzas and sends them on their way."""

    def __init__(self, conversation):
        self.conversation = conversation
        self.within = ANSWER

    async def post(self, path, body, *statuses):
        """Post something, and expect one of these statuses; return what came back."""
        asked = "till", path, body, *statuses
        return await self.conversation.post(*asked, within=self.within)

    async def order(self, customer, topping):
        """Order a pizza; return its number."""
        body = {"customer": customer, "topping": topping}
        answer = await self.post("/pizzas", body, 201)
        number = answer.content.get("number") if isinstance(answer.content, dict) else None
        row = {"number": "…", **body, "state": "ordered"}
        answer.expect(row | {"number": number} if type(number) is int else row)
        return number

    async def step(self, number, state, *statuses):
        """Ask for a state; return the status, which is 200 unless others are allowed."""
        path = f"/pizzas/{number}/state"
        answer = await self.post(path, {"state": state}, *statuses)
        if answer.status == 200:
            answer.expect(change(number, state))
        return answer.status


class Baker:
    """Another program that reads the same file, and sometimes locks it."""

    def __init__(self, file, timeline):
        self.file, self.timeline = file, timeline

    def note(self, text):
        return self.timeline.record("baker", Kind.NOTE, text)

    @contextlib.contextmanager
    def database(self, wait=BUSY):
        """The database, without a transaction that was not asked for."""
        try:
            address = f"{self.file.as_uri()}?mode=rw"
            database = sqlite3.connect(
                address, timeout=wait, isolation_level=None, uri=True
            )
            with contextlib.closing(database):
                yield database
        except sqlite3.Error as error:
            raise Failure(
                Outcome.WRONG_MESSAGE,
                "the baker's program may use pizzas.db when nobody changes it",
                f"the baker's program cannot: {error}",
                self.note(f"cannot use pizzas.db: {error}"),
            ) from None

    def rows(self, wait=BUSY):
        """All pizzas: customer, topping and state of each number."""
        with self.database(wait) as database:
            found = database.execute("SELECT number, customer, topping, state FROM pizzas")
            return {number: tuple(row) for number, *row in found}

    def expect(self, number, *row):
        """The committed row of a pizza ends so; an order has a customer and a topping."""
        found = self.rows().get(number, ())
        here = self.note(f"reads {number}: {', '.join(map(str, found)) or 'no such row'}")
        if found[-len(row) :] != row:
            wanted = f"the row of pizza {number} in pizzas.db holds {', '.join(row)}"
            raise Failure(Outcome.WRONG_MESSAGE, wanted, f"the baker {here.text}", here)

    @contextlib.contextmanager
    def reading(self):
        """Read, and take time over it: meanwhile others may write, but not commit."""
        with self.database() as database:
            database.execute("BEGIN")
            database.execute("SELECT count(*) FROM pizzas").fetchall()
            self.note("begins to read, which holds up a commit")
            yield
            self.note("has read")

    @contextlib.contextmanager
    def writing(self, lock="IMMEDIATE"):
        """Write, and take time over it: meanwhile nobody else may.

        An exclusive lock keeps others from reading, too, but for some modes of SQLite.
        """
        with self.database() as database:
            database.execute(f"BEGIN {lock}")
            self.note("locks the database")
            yield
            self.note("unlocks it, and has changed nothing")


@pytest.fixture
def till(conversation):
    """Whoever posts, over HTTP."""
    return Till(conversation)


@pytest.fixture
def baker(server, conversation):
    """Another program that uses the server's database."""
    return Baker(server.home.resolve() / "pizzas.db", conversation.timeline)


def change(number, state):
    """What is told of a change."""
    return {"number": number, "state": state}


async def open_tab(conversation, name, customer):
    return await conversation.join(name, f"/customers/{quote(customer)}")


async def noticed(server, *, left):
    """Wait until the server has seen which tabs closed, and so many are still open."""
    await until(lambda: server.report().handlers <= left, SETTLE_DEADLINE)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="answer with the row as the README shows it, and commit before you do: "
    "the baker's program sees only what is committed to pizzas.db",
    server_crashed="the exception is in your code; its last line stands above. Values take "
    "the place of a `?`: in the text of a statement, the name O'Hara breaks it",
    silence="each POST is answered: what does yours wait for?",
    loop_blocked="this call waits in the event loop's thread",
)
async def test_pizzas_go_their_way_in_the_database(till, baker, word):
    """what is answered is in the database, whatever the names"""
    orders = [
        (word(), word()),
        (f"Zoë O'Hara-{word()}", f'"{word()}" & 100% olives?'),
        (word(), f"'); DROP TABLE pizzas; -- {word()}"),
    ]
    numbers = []
    for customer, topping in orders:
        numbers.append(await till.order(customer, topping))
        baker.expect(numbers[-1], customer, topping, "ordered")

    for state in STATES[1:]:
        for number, order in zip(numbers, orders, strict=True):
            await till.step(number, state)
            baker.expect(number, *order, state)


NO_STATES = ["", "burnt", "OVEN", None, 1, ["oven"]]
NO_JSON = ["", "oven", "[]", "null", "{}", '{"state": "oven"', '"oven"']
NO_ORDERS = [
    {},
    {"customer": "a"},
    {"topping": "a"},
    {"customer": "", "topping": "a"},
    {"customer": "a", "topping": ""},
    {"customer": 7, "topping": "a"},
    {"customer": "a", "topping": None},
]


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="no such pizza is 404, a body that is no such object or names no state "
    "422, and a state that is not the next one 409; nothing is changed then",
    server_crashed="SQLite's integers have 64 bits, and a longer number is the one of no "
    "pizza; a Pydantic model as parameter answers a wrong body with 422",
    silence="each POST is answered, also a bad one",
)
async def test_what_cannot_be_is_refused(till, baker, word):
    """404, 409 or 422, and nothing is changed"""
    number = await till.order(word(), word())

    for body in [*NO_JSON, *map(json.dumps, NO_ORDERS)]:
        await till.post("/pizzas", body, 422)
    for body in [*NO_JSON, *({"state": state} for state in NO_STATES)]:
        await till.post(f"/pizzas/{number}/state", body, 422)
    for nobody in [number + 1, 0, -number, 2**63, 2**70, 10**99]:
        await till.step(nobody, "oven", 404)
    for now, state in enumerate(STATES):
        for other in [*STATES[: now + 1], *STATES[now + 2 :]]:
            await till.step(number, other, 409)
        baker.expect(number, state)
        if now + 1 < len(STATES):
            await till.step(number, STATES[now + 1])
    if len(rows := baker.rows()) != 1:
        got = f"{len(rows)} rows"
        raise Failure(Outcome.WRONG_MESSAGE, "one order was good: one row", got)


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    silence="keep all tabs of a customer, not one connection a customer; the row of the "
    "pizza says whose it is",
    wrong_message='every tab of the customer who ordered hears {"number": n, "state": s}, '
    "once, and nobody else does",
    closed_early="the route is `/customers/{customer}`; its handler ends when the tab "
    "closes, and a second tab closes no other",
    server_crashed="the exception is in your code; its last line stands above",
)
async def test_every_tab_of_the_customer_hears(conversation, till, word):
    """every tab of the customer hears it, and nobody else"""
    ana, ben = f"Zoë O'Hara-{word()}", word()
    first = await open_tab(conversation, "ana", ana)
    other = await open_tab(conversation, "ben", ben)
    second = await open_tab(conversation, "ana 2", ana)
    pizzas = [(await till.order(ana, word()), [first, second]) for _ in range(2)]
    pizzas.insert(1, (await till.order(ben, word()), [other]))

    for state in STATES[1:]:
        for number, tabs in pizzas:
            await till.step(number, state)
            for tab in tabs:
                await tab.expect(change(number, state))


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    wrong_message="what was refused, and that a pizza was ordered, is told to nobody",
    silence="after a refusal everything goes on as before",
    server_crashed="a refusal is an answer, and no exception that leaves your code",
    closed_early="a refusal is for the till alone: no tab is closed",
)
async def test_what_is_refused_is_told_to_nobody(conversation, till, word):
    """what is refused is told to nobody"""
    customer = word()
    ana = await open_tab(conversation, "ana", customer)
    number = await till.order(customer, word())

    await till.post(f"/pizzas/{number}/state", {"state": "burnt"}, 422)
    await till.step(number + 1, "oven", 404)
    await till.step(number, "road", 409)
    await till.step(number, "oven")
    await ana.expect(change(number, "oven"))
    await till.step(number, "oven", 409)
    await till.step(number, "road")
    await ana.expect(change(number, "road"))


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    silence="a tab is read and written at the same time; and one that closes is taken out "
    "alone",
    wrong_message="`ping` is answered with `pong`, in the tab that said it; anything else "
    "is ignored; and a tab that has gone harms no POST",
    closed_early="whatever a tab says, text or binary, is no reason to close it",
    server_crashed="receive_text() fails on a binary message; and when a tab has closed "
    "there is nobody to send to, and nothing to close: catch WebSocketDisconnect",
)
async def test_a_tab_may_talk_and_close(conversation, server, till, word):
    """`ping` is answered, all else ignored, and a tab may close"""
    customer = word()
    number = await till.order(customer, word())
    ana, ben, eva = [
        await open_tab(conversation, name, customer) for name in ["ana", "ana 2", "ana 3"]
    ]

    for message in [word(), word().encode(), "", "{", b""]:
        await ana.send(message)
    await ana.send("ping")
    await ana.expect("pong")
    ben.vanish()
    await eva.leave()
    await till.step(number, "oven")
    await ana.expect(change(number, "oven"))

    await noticed(server, left=1)
    await till.step(number, "road")
    await ana.expect(change(number, "road"))
    await ana.leave(1001)
    await noticed(server, left=0)
    await till.step(number, "eaten")
    await server.expect_quiet()


@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    unexpected_message="the commit was still to come, and could have failed: commit first, "
    "then tell",
    loop_blocked="this call waits for the database in the event loop's thread, and with it "
    "waits everybody: aiosqlite, or asyncio.to_thread",
    silence="while one request waits for the database, the others are served; when it is "
    "committed, the customer hears of it",
    wrong_message="a lock is no refusal: for LOCK_TIMEOUT seconds you wait for it",
    server_crashed="the baker holds a lock for a moment: wait for LOCK_TIMEOUT seconds",
)
async def test_nobody_hears_before_the_commit(conversation, till, baker, word):
    """nobody hears of it before the commit, nor waits for it"""
    customer = word()
    number = await till.order(customer, word())
    ana = await open_tab(conversation, "ana", customer)

    with baker.reading():
        step = asyncio.create_task(till.step(number, "oven"))
        try:
            told = await watch(ana, baker, number)
        except BaseException:
            step.cancel()
            raise
    if not told:
        await ana.expect(change(number, "oven"))
    await step
    baker.expect(number, "oven")


async def watch(tab, baker, number):
    """Ping for a while; whether the tab hears of a change, which must be committed then."""
    for _ in range(PINGS):
        await asyncio.sleep(PAUSE)
        await tab.send("ping")
        heard = await tab.receive('"pong"')
        if heard == "pong":
            continue
        # Some modes of SQLite let a commit pass while others read.
        with contextlib.suppress(Failure):
            if baker.rows(wait=0)[number][-1] == "oven":
                await tab.expect("pong")
                return True
        raise Failure(
            Outcome.UNEXPECTED_MESSAGE,
            f"{tab.name} hears nothing but pong before the commit",
            f"{tab.name} ← {shown(json.dumps(heard))}",
            tab.note(Kind.NOTE, "the baker still reads, and nothing is committed"),
        )
    return False


@pytest.mark.server(environment={"LOCK_TIMEOUT": "0.1"})
@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    wrong_message="what was answered with 503 has not happened: nobody hears of it, and a "
    "rollback keeps it out of the next commit",
    server_crashed="a database that stays locked raises sqlite3.OperationalError, at a "
    "statement or at the commit: roll back, and answer with 503",
    silence="give up after LOCK_TIMEOUT seconds: sqlite3.connect has a `timeout`",
    unexpected_message="commit first, then tell",
    loop_blocked="this call waits for the database in the event loop's thread",
)
async def test_what_cannot_be_stored_has_not_happened(
    conversation, server, till, baker, word
):
    """locked for too long: 503, and nothing has happened"""
    customer = word()
    number, other = [await till.order(customer, word()) for _ in range(2)]
    ana = await open_tab(conversation, "ana", customer)

    with baker.writing():
        await till.step(number, "oven", 503)
        await till.post("/pizzas", {"customer": customer, "topping": word()}, 503)
    baker.expect(number, "ordered")
    with baker.reading():
        # Some modes of SQLite let a commit pass while others read.
        status = await till.step(number, "oven", 503, 200)
    if status == 200:
        await ana.expect(change(number, "oven"))
    await till.step(other, "oven")
    await ana.expect(change(other, "oven"))
    baker.expect(other, "oven")
    baker.expect(number, "ordered" if status == 503 else "oven")
    if len(rows := baker.rows()) != 2:
        got = f"{len(rows)} rows"
        raise Failure(Outcome.WRONG_MESSAGE, "two orders were good: two rows", got)

    following = "oven" if status == 503 else "road"
    await till.step(number, following)
    await ana.expect(change(number, following))
    await ana.leave()
    await server.expect_quiet()


@pytest.mark.task(4, points=1)
@pytest.mark.likely(
    wrong_message="all wait for the database; then one of them takes the step, and the "
    "others are 409. A transaction that begins by reading may be refused when it writes: "
    "look and change in one statement, or let one in at a time",
    unexpected_message="between looking at the state and changing it, others did the same: "
    "look and change in one statement, or let one in at a time",
    server_crashed="requests at the same time got into each other's way: one transaction "
    "at a time on one connection, and a `timeout` for locks",
    silence="each request is answered: do two of them wait for each other?",
    loop_blocked="this call waits in the event loop's thread for another request",
)
async def test_a_step_is_taken_once(conversation, till, baker, word):
    """twenty ask for the same step, and it is taken once"""
    customer, till.within = word(), CROWD
    number = await till.order(customer, word())
    ana = await open_tab(conversation, "ana", customer)

    for state, lock in [("oven", "IMMEDIATE"), ("road", "EXCLUSIVE")]:
        steps = (till.step(number, state, 200, 409) for _ in range(PRESSED))
        answers = await together(steps, baker, lock)
        if answers.count(200) != 1:
            raise Failure(
                Outcome.UNEXPECTED_MESSAGE,
                f"one of {PRESSED} who ask for `{state}` is answered with 200",
                f"{answers.count(200)} are",
            )
        await ana.expect(change(number, state))
        baker.expect(number, state)
    await till.step(number, "eaten")
    await ana.expect(change(number, "eaten"))


@pytest.mark.task(4, points=1)
@pytest.mark.likely(
    wrong_message="requests at the same time got into each other's way: the database "
    "gives out the numbers, and on one connection there is one transaction at a time",
    server_crashed="requests at the same time got into each other's way: the database "
    "gives out the numbers, and on one connection there is one transaction at a time",
    silence="a change was told to nobody, or a request was not answered: one transaction "
    "at a time on one connection",
    loop_blocked="this call waits in the event loop's thread for another request",
)
async def test_many_at_the_same_time_lose_nothing(conversation, till, baker, word):
    """many pizzas at the same time, and nothing is lost"""
    customers, till.within = [word(), word()], CROWD
    tabs = [
        await open_tab(conversation, name, customer)
        for name, customer in zip(["ana", "ben"], customers, strict=True)
    ]
    orders = [(customers[n % 2], word()) for n in range(ORDERED)]

    numbers = await together((till.order(*order) for order in orders), baker, "EXCLUSIVE")
    for number, order in zip(numbers, orders, strict=True):
        baker.expect(number, *order, "ordered")
    await together((till.step(number, "oven") for number in numbers), baker, "IMMEDIATE")

    for which, tab in enumerate(tabs):
        left = numbers[which::2]
        wanted = f"the change of one of these pizzas: {', '.join(map(str, left))}"
        while left:
            heard = await tab.receive(wanted)
            if heard not in [change(number, "oven") for number in left]:
                got = f"{tab.name} ← {shown(json.dumps(heard))}"
                raise Failure(Outcome.WRONG_MESSAGE, f"{tab.name} ← {wanted}", got)
            left.remove(heard["number"])
    for number in numbers:
        baker.expect(number, "oven")


async def together(asked, baker, lock):
    """Ask all at the same time; the answers, or the first failure when all are over."""
    # Whoever looks first and changes later has looked before anybody can change: on
    # connections of their own under a lock that lets them read, on one connection under
    # a lock that does not.
    with baker.writing(lock):
        asking = asyncio.gather(*asked, return_exceptions=True)
        await asyncio.wait([asking], timeout=PILE_UP)
    answers = await asking
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers
