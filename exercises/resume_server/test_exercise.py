"""The checks of the ticker: readers who come and go, come back, and catch up slowly."""

import json
from urllib.parse import urlencode

import pytest

from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.serving import ServerProcess
from exercises.grader.timeline import shown

KEEP = 50  # lines
LONG = "x" * 256 * 1024  # a quarter of a megabyte
OLD, NEW = 24, 20  # lines: so many long ones are more than the buffers of a reader hold


def line(number, text):
    return {"kind": "line", "number": number, "text": text}


class Reporter:
    """Posts lines, and knows which number each of them must get."""

    def __init__(self, conversation):
        self.conversation, self.lines = conversation, []

    async def post(self, text):
        """A line is posted, and answered with 201 and the line."""
        expected = line(len(self.lines) + 1, text)
        answer = await self.conversation.post("reporter", "/lines", {"text": text}, 201)
        answer.expect(expected)
        self.lines.append(expected)

    async def is_refused(self, body):
        """What is no line is answered with 422."""
        await self.conversation.post("reporter", "/lines", body, 422)


@pytest.fixture
def reporter(conversation):
    return Reporter(conversation)


def ticker(**query):
    """The path with a query."""
    return f"/ticker?{urlencode(query)}"


async def read(conversation, name, path="/ticker", *, complete=True, edition=None):
    """A reader who is welcome, and the edition that it was told."""
    reader = await conversation.join(name, path)
    return reader, await welcome(reader, complete=complete, edition=edition)


async def welcome(reader, *, complete=True, edition=None):
    """The next message must be a welcome; return its edition."""
    wanted = {"kind": "welcome", "edition": edition or "…", "complete": complete}
    heard = await reader.receive(json.dumps(wanted, ensure_ascii=False))
    told = heard.get("edition") if isinstance(heard, dict) else None
    right = isinstance(told, str) and told and edition in (None, told)
    if (
        not right
        or heard != wanted | {"edition": told}
        or heard["complete"] is not complete
    ):
        here = reader.timeline.events[-1]
        expected = f"{reader.name} ← {json.dumps(wanted, ensure_ascii=False)}"
        got = f"{reader.name} ← {shown(json.dumps(heard))}"
        raise Failure(Outcome.WRONG_MESSAGE, expected, got, here)
    return told


async def expect_lines(reader, lines):
    for each in lines:
        try:
            await reader.expect(each)
        except Failure as failure:
            # Whole, a long line would fill many screens.
            text = shown(json.dumps(each, ensure_ascii=False))
            failure.expected = f"{reader.name} ← {text}"
            raise


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="first the welcome, then every new line, as the reporter got it: compare "
    "key by key; a queue that several readers share gives each message to one of them; and "
    "who comes without `seen` hears new lines only",
    silence="every line reaches every reader: a queue that several readers share gives "
    "each message to one of them",
    closed_early="the handler goes on for as long as the reader stays",
    server_crashed="the exception is in your code; its last line stands above",
)
async def test_every_line_reaches_every_reader(conversation, reporter, word):
    """every line has a number and reaches every reader"""
    ana, edition = await read(conversation, "ana")
    ben, _ = await read(conversation, "ben", edition=edition)
    for text in [word(), "", f"žluťoučký {word()} ⚽"]:
        await reporter.post(text)
    eva, _ = await read(conversation, "eva", edition=edition)
    await reporter.post(word())

    await expect_lines(ana, reporter.lines)
    await expect_lines(ben, reporter.lines)
    await expect_lines(eva, reporter.lines[3:])


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="what is no object with a string as its `text` is answered with 422, "
    "takes no number, and is heard by nobody: a Pydantic model sees to it",
    server_crashed="look at the shape before you use it: a Pydantic model sees to it",
    silence="a request is answered, whatever stands in it",
    closed_early="a bad request concerns no reader",
)
async def test_what_is_no_line_takes_no_number(conversation, reporter, word):
    """what is no line is refused with 422 and takes no number"""
    ana, _ = await read(conversation, "ana")
    await reporter.post(word())

    for body in ["", "goal", '{"text": ', "null", "[]", f'"{word()}"']:
        await reporter.is_refused(body)
    for other in [{}, {"txt": "a"}, {"text": None}, {"text": 5}, {"text": ["a"]}, ["text"]]:
        await reporter.is_refused(other)

    await reporter.post(word())
    await expect_lines(ana, reporter.lines)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    silence="something waits for news and never learns that its reader has left: read, "
    "too, and end what you started when the reader goes",
    server_crashed="what readers say may be binary, and sending to one who has gone raises "
    "WebSocketDisconnect: catch it where it concerns nobody else",
    wrong_message="who leaves changes nothing for the others",
    closed_early="what readers say is read and ignored, and who leaves harms nobody",
    unexpected_message="what readers say is not answered",
)
async def test_who_leaves_leaves_nothing(conversation, server, reporter, word):
    """readers may talk and leave, and leave nothing behind"""
    before = server.report()
    ana, ben, eva = [(await read(conversation, name))[0] for name in ["ana", "ben", "eva"]]
    for reader in [ana, eva]:
        for message in [word(), word().encode(), ""]:
            await reader.send(message)

    await ana.leave()
    ben.vanish()
    for _ in range(3):
        await reporter.post(word())
    await expect_lines(eva, reporter.lines)
    await eva.leave()

    await server.expect_quiet(since=before)


@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    wrong_message="after the welcome come the lines whose number is greater than `seen`, "
    "in order, and then the new ones; `complete` is true, for nothing is missing",
    silence="a reader who was away is sent what came meanwhile, and hears what is new; 0 "
    "asks for all, and is not the same as nothing",
    closed_early="`seen` and `edition` come in the query, and both may be missing",
    server_crashed="the exception is in your code; its last line stands above",
)
async def test_who_comes_back_hears_what_came_meanwhile(conversation, reporter, word):
    """who comes back hears what came meanwhile, then what is new"""
    ana, edition = await read(conversation, "ana")
    for _ in range(2):
        await reporter.post(word())
    await expect_lines(ana, reporter.lines)
    await ana.leave()
    for _ in range(3):
        await reporter.post(word())

    asked = {
        "ana again": {"seen": 2, "edition": edition},
        "all": {"seen": 0, "edition": edition},
        "none": {"seen": 5, "edition": edition},
        "any edition": {"seen": 4},
    }
    readers = [
        (await read(conversation, name, ticker(**query), edition=edition))[0]
        for name, query in asked.items()
    ]
    await reporter.post(word())

    for reader, query in zip(readers, asked.values(), strict=True):
        await expect_lines(reader, reporter.lines[query["seen"] :])


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    unexpected_message="this is no number of a line: declare `seen` with its type and its "
    "lowest value, and FastAPI refuses the handshake",
    wrong_message="refused means HTTP 403 instead of a connection: decide before accept",
    server_crashed="the query holds whatever somebody writes there: let FastAPI check it",
    silence="the handshake is refused at once",
    closed_early="only what is no whole number, or less than 0, is refused",
)
async def test_a_senseless_number_is_refused(conversation, reporter, word):
    """a `seen` that is no number of a line is refused"""
    await reporter.post(word())

    for seen in ["-1", "-7", word(), "1.5", "", "NaN", "1,2", "[1]"]:
        await conversation.expect_refusal("nonsense", ticker(seen=seen))

    ana, _ = await read(conversation, "ana", ticker(seen=0))
    await expect_lines(ana, reporter.lines)


@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    wrong_message="`complete` is true if the line after `seen` is still kept, or still to "
    "come, else false; 50 lines are kept, no more and no less, and their numbers go on",
    silence="who has missed something hears all lines that are kept, from the oldest on",
    server_crashed="lines that are no longer kept cannot be looked up: the exception is in "
    "the line above",
    closed_early="who has missed something is welcome, too",
)
async def test_a_gap_is_told(conversation, reporter, word):
    """`complete` is false as soon as one line is no longer kept"""
    ana, edition = await read(conversation, "ana")
    for _ in range(KEEP):
        await reporter.post(word())
    whole, _ = await read(conversation, "whole", ticker(seen=0, edition=edition))
    for _ in range(2):
        await reporter.post(word())

    # Line 2 is the last one that is no longer kept.
    for seen, complete in [(KEEP + 2, True), (3, True), (2, True), (1, False), (0, False)]:
        path = ticker(seen=seen, edition=edition)
        reader, _ = await read(conversation, f"seen {seen}", path, complete=complete)
        await expect_lines(reader, reporter.lines[max(2, seen) :])
        await reader.leave()
    for reader in [ana, whole]:
        await expect_lines(reader, reporter.lines)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    wrong_message="numbers mean something in their own edition, and only up to the last "
    "line: else `complete` is false, and all kept lines follow. Each start of the server "
    "makes an edition that never was before",
    silence="in another edition all lines that are kept follow, whatever `seen` says, and "
    "then the new ones",
    server_crashed="the exception is in your code; its last line stands above",
    closed_early="a reader of another edition is welcome, too",
)
async def test_another_edition_is_told(conversation, server, reporter, word):
    """a number of another edition, or of the future, is told"""
    with ServerProcess(server.file, limited=True) as earlier:
        conversation.url = earlier.url
        ana, past = await read(conversation, "ana earlier")
        conversation.url = server.url
    _, edition = await read(conversation, "eva")
    if edition == past:
        raise Failure(
            Outcome.WRONG_MESSAGE,
            "a server that is started again has another edition",
            f"both times it was {edition!r}",
            conversation.timeline.events[-1],
        )
    for _ in range(3):
        await reporter.post(word())

    strange = [(past, 2), (past, 0), (past, 700), (word(), 3), (edition, 4)]
    readers = []
    for number, (other, seen) in enumerate(strange, 1):
        path, told = ticker(seen=seen, edition=other), {"edition": edition}
        reader, _ = await read(conversation, f"ana {number}", path, complete=False, **told)
        readers.append(reader)
    await reporter.post(word())
    for reader in readers:
        await expect_lines(reader, reporter.lines)


@pytest.mark.task(4, points=3)
@pytest.mark.likely(
    wrong_message="a line was posted while the reader caught up, and it was lost, doubled "
    "or told too early: copy what is kept and register in one step, or let each reader "
    "fetch the line after the one it has sent",
    silence="either post_line waits for a reader who is slow, and it should await none; or "
    "what is posted while one catches up never reaches that one, who registers too late "
    "or has too little room for what waits",
    server_crashed="what is kept may change while you send it, and sending to a reader who "
    "was cut off raises: the line stands above. If a line never comes although nothing "
    "crashed for its reader: who registers after the replay misses what was posted "
    "during it",
    closed_early="at least 50 lines may wait for a reader, and one who is slow for a "
    "moment may stay",
    loop_blocked="this call stops the event loop, and with it everybody",
)
async def test_nothing_is_lost_while_a_reader_catches_up(
    conversation, server, reporter, word
):
    """lines posted while a reader catches up come once, in order"""
    for _ in range(OLD):
        await reporter.post(word() + LONG)
    slow = [
        await conversation.join(name, ticker(seen=0), reads=False)
        for name in ["zoe", "cut off"]
    ]
    ana, _ = await read(conversation, "ana")

    for _ in range(NEW):
        await reporter.post(word())
        await expect_lines(ana, reporter.lines[-1:])
    slow[1].vanish()
    slow[0].read_again()

    await welcome(slow[0])
    await expect_lines(slow[0], reporter.lines)
    await reporter.post(word())
    for reader in [slow[0], ana]:
        await expect_lines(reader, reporter.lines[-1:])
        await reader.leave()
    await server.expect_quiet()
