"""The checks of the wall of notes: a state for many, pointers, slow and broken lines."""

import asyncio
import json
import random

import pytest

from exercises.grader.outcomes import Failure, Outcome

ROOM = 30  # notes on a wall
LARGE = 100_000  # characters of a note
ROUNDS = 20  # times that somebody pins and tears a large note
FLOOD = 1000  # pointers or moves in one breath
LONG_NAME = 7500  # characters; a URL has little room for more
POINTERS = 700  # with such a name, of two: 10 MB, more than the buffers hold
FAR, FURTHER = 400, 1700  # large notes and moves: 40 MB and 2500 changes
CUTS = 4  # times that a line is cut
LONG = 6.0  # seconds for a wall of 3 MB to arrive
NO_JSON = ["", "hello", "{", '{"type": "clear"', "{'type': 'clear'}", "[" * 100_000]
NO_OBJECT = ["[]", "null", "7", '"clear"', "true", '[{"type": "clear"}]']
NO_TYPE = [
    {},
    {"text": "a", "x": 1, "y": 1},
    {"type": "pinned", "id": 1, "text": "a", "x": 1, "y": 1},
    {"type": "burn", "id": 1},
    {"type": None},
    {"type": ["clear"]},
]
NO_FIT = [
    {"type": "pin"},
    {"type": "pin", "x": 1, "y": 1},
    {"type": "pin", "text": "a", "x": 1},
    {"type": "pin", "text": 5, "x": 1, "y": 1},
    {"type": "pin", "text": None, "x": 1, "y": 1},
    {"type": "pin", "text": "a", "x": "left", "y": 1},
    {"type": "pin", "text": "a", "x": 1.5, "y": 1},
    {"type": "pin", "text": "a", "x": [1], "y": 1},
    {"type": "pin", "text": "a", "x": -1, "y": 1},
    {"type": "pin", "text": "a", "x": 1, "y": 1000},
    '{"type": "pin", "text": "a", "x": 1e999, "y": 1}',
    '{"type": "pin", "text": "a", "x": ' + "9" * 5000 + ', "y": 1}',
    {"type": "pin", "text": "a" * (LARGE + 1), "x": 1, "y": 1},
    {"type": "move", "x": 1, "y": 1},
    {"type": "move", "id": 1, "x": 1},
    {"type": "move", "id": 1, "x": 1000, "y": 1},
    {"type": "move", "id": None, "x": 1, "y": 1},
    {"type": "move", "id": [1], "x": 1, "y": 1},
    {"type": "tear"},
    {"type": "tear", "id": {}},
]
NO_NOTE = [{"type": "tear", "id": n} for n in (0, -1, 2, 10**6)] + [
    {"type": "move", "id": 2, "x": 1, "y": 1}
]


class Editor:
    """Somebody at a wall, and the notes as they look from there."""

    def __init__(self, client):
        self.client = client
        self.notes = {}

    async def hear(self, wanted="a change"):
        """Take the next message, and do what it says to the own picture."""
        event = await self.client.receive(wanted, LONG)
        try:
            self.apply(event)
        except (KeyError, TypeError, AttributeError):
            got = f"{self.client.name} ← {json.dumps(event)[:300]}"
            meant = f"{self.client.name} ← {wanted}, which fits the wall as it was"
            raise Failure(Outcome.WRONG_MESSAGE, meant, got) from None
        return event

    def apply(self, event):
        match event["type"]:
            case "wall":
                self.notes = {note["id"]: without(note, "id") for note in event["notes"]}
            case "pinned":
                if event["id"] in self.notes:
                    raise KeyError(event["id"])
                self.notes[event["id"]] = without(event, "id", "type")
            case "moved":
                self.notes[event["id"]] |= {"x": event["x"], "y": event["y"]}
            case "torn":
                del self.notes[event["id"]]
            case "cleared":
                self.notes.clear()

    async def hear_until(self, text):
        """Hear on until a note with this text is pinned."""
        event = {}
        while event.get("text") != text:
            event = await self.hear(f'in the end {{"type": "pinned", "text": "{text}"…}}')
        return event["id"]


def without(mapping, *keys):
    return {key: value for key, value in mapping.items() if key not in keys}


def pin(text, x=1, y=2):
    return {"type": "pin", "text": text, "x": x, "y": y}


def pinned(number, text, x=1, y=2):
    return {"type": "pinned", "id": number, "text": text, "x": x, "y": y}


def picture(notes):
    """The message with these notes: pairs of an id and what `pin` made."""
    shown = [{"id": number} | without(note, "type") for number, note in notes]
    return {"type": "wall", "notes": shown}


async def enter(conversation, wall, who, *notes):
    """Connect to a wall, and expect these notes there."""
    client = await conversation.join(who, f"/walls/{wall}/{who}")
    await client.expect(picture(notes))
    return client


async def staff(conversation, wall, *names):
    """Some who see an empty wall."""
    return [await enter(conversation, wall, name) for name in names]


async def change(request, expected, who, *others):
    """Somebody asks for a change, and it is the next thing that everybody hears."""
    await who.send(request)
    for client in [who, *others]:
        await client.expect(expected)


async def expect_error(client):
    """The next message must be an error with a reason."""
    wanted = '{"type": "error", "reason": "…"}'
    heard = await client.receive(wanted)
    error = heard if isinstance(heard, dict) and heard.get("type") == "error" else {}
    if not (isinstance(error.get("reason"), str) and error["reason"]):
        got = f"{client.name} ← {json.dumps(heard)[:300]}"
        raise Failure(Outcome.WRONG_MESSAGE, f"{client.name} ← {wanted}", got)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="compare key by key: each change has its own `type` and its own keys, "
    "and an id is given once, also when its note is gone",
    silence="who comes hears the wall first, also if it is empty; a change goes to "
    "everybody, and to whoever asked for it",
    closed_early="the route is `/walls/{wall}/{who}`; the handler receives in a loop",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_everybody_sees_every_change(conversation, word):
    """everybody sees every change, in one order"""
    wall, first, second, third = word(), word(), word(), word()
    ana, ben, eva = await staff(conversation, wall, "ana", "ben", "eva")

    await change(pin(first, 10, 20), pinned(1, first, 10, 20), ana, ben, eva)
    await change(pin(second, 0, 999), pinned(2, second, 0, 999), ben, ana, eva)
    moved = {"id": 1, "x": 500, "y": 0}
    await change({"type": "move"} | moved, {"type": "moved"} | moved, eva, ana, ben)
    await change({"type": "tear", "id": 2}, {"type": "torn", "id": 2}, ana, ben, eva)
    await change(pin(third), pinned(3, third), ana, ben, eva)
    await change({"type": "clear"}, {"type": "cleared"}, ben, ana, eva)
    await change(pin(first), pinned(4, first), eva, ana, ben)

    texts = [word() for _ in range(5)]
    for text in texts:
        await ana.send(pin(text))
    for client in [ana, ben, eva]:
        for number, text in enumerate(texts, 5):
            await client.expect(pinned(number, text))


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="who comes gets the notes as they are now, moved and not torn, in the "
    "order of their ids; each wall has its own, and keeps them when all have left",
    silence="who comes hears the wall first, whether anybody is there or not",
    closed_early="who comes and who goes is nobody else's business",
    server_crashed="when somebody leaves, take that connection out, and nothing else",
)
async def test_a_newcomer_gets_the_wall(conversation, server, word):
    """a newcomer gets the wall as it is"""
    wall, other = word(), word()
    texts = [word() for _ in range(4)]
    (ana,) = await staff(conversation, wall, "ana")
    for number, text in enumerate(texts, 1):
        await change(pin(text), pinned(number, text), ana)
    moved = {"id": 1, "x": 7, "y": 8}
    await change({"type": "move"} | moved, {"type": "moved"} | moved, ana)
    await change({"type": "tear", "id": 3}, {"type": "torn", "id": 3}, ana)

    left = [(1, pin(texts[0], 7, 8)), (2, pin(texts[1])), (4, pin(texts[3]))]
    ben = await enter(conversation, wall, "ben", *left)
    eva = await enter(conversation, other, "eva")
    await change(pin(texts[0]), pinned(1, texts[0]), eva)
    await change({"type": "tear", "id": 4}, {"type": "torn", "id": 4}, ben, ana)

    await ana.leave()
    await change({"type": "tear", "id": 2}, {"type": "torn", "id": 2}, ben)
    await ben.leave()
    await change({"type": "clear"}, {"type": "cleared"}, eva)
    late = await enter(conversation, wall, "late", left[0])
    await change(pin(texts[1]), pinned(5, texts[1]), late)
    for client in [eva, late]:
        await client.leave()
    await server.expect_quiet()


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    server_crashed="parsing raises, or a key is missing, or it is no dictionary at all: "
    "catch it inside the loop, and answer with an error",
    closed_early="an error is an answer and not the end: catch it inside the loop",
    silence="each message that makes no sense is answered with one error",
    wrong_message='what makes no sense is answered with {"type": "error", "reason": "…"}, '
    "to its sender alone, and changes nothing: look first, then change",
)
async def test_what_makes_no_sense_is_answered(conversation, word):
    """what makes no sense is answered, and changes nothing"""
    wall, first, second = word(), word(), word()
    ana, ben = await staff(conversation, wall, "ana", "ben")
    await change(pin(first), pinned(1, first), ana, ben)

    for message in [*NO_JSON, *NO_OBJECT, *NO_TYPE, *NO_FIT, *NO_NOTE, b"\x00\xff"]:
        await ana.send(message)
        await expect_error(ana)

    await change(pin(second), pinned(2, second), ana, ben)
    await enter(conversation, wall, "late", (1, pin(first)), (2, pin(second)))


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    wrong_message="30 notes have room, and for one more its sender alone hears an error; "
    "it takes no id, and there is room again when a note is torn or the wall cleared",
    silence="a note too many is answered with an error, as everything that does not fit",
    closed_early="a note too many is answered with an error, and that is all",
    server_crashed="a note too many, or one that is gone: answer with an error",
)
async def test_a_full_wall_refuses(conversation, word):
    """a full wall refuses, until there is room again"""
    wall, text = word(), word()
    ana, ben = await staff(conversation, wall, "ana", "ben")
    for number in range(1, ROOM + 1):
        await change(pin(text), pinned(number, text), ana, ben)

    for client in [ana, ben, ana]:
        await client.send(pin(text))
        await expect_error(client)
    await change({"type": "tear", "id": 5}, {"type": "torn", "id": 5}, ben, ana)
    await ana.send({"type": "tear", "id": 5})
    await expect_error(ana)
    await change(pin(text), pinned(ROOM + 1, text), ana, ben)
    await ben.send(pin(text))
    await expect_error(ben)
    await change({"type": "clear"}, {"type": "cleared"}, ana, ben)
    await ana.send({"type": "move", "id": 1, "x": 1, "y": 1})
    await expect_error(ana)
    await change(pin(text), pinned(ROOM + 2, text), ben, ana)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    wrong_message="a pointer goes to the others and not back, with the name of whom it "
    "belongs to, and is no part of the wall",
    silence="a pointer goes to everybody else at the wall",
    closed_early="a pointer is a message as the others: look at `type` first",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_the_others_see_pointers(conversation, word):
    """the others see pointers, and no wall keeps them"""
    wall, text, who = word(), word(), f"ben-{word()[:4]}"
    ana, ben, eva = await staff(conversation, wall, "ana", who, "eva")
    (far,) = await staff(conversation, word(), "far")

    for at in [{"x": 3, "y": 4}, {"x": 0, "y": 999}]:
        await ben.send({"type": "point"} | at)
        for client in [ana, eva]:
            await client.expect({"type": "pointed", "who": who} | at)
    for at in [{"x": 1000, "y": 0}, {"x": 1}, {"x": "left", "y": 0}]:
        await ben.send({"type": "point"} | at)
        await expect_error(ben)
    await change(pin(text), pinned(1, text), ben, ana, eva)
    await enter(conversation, wall, "late", (1, pin(text)))
    await change(pin(text), pinned(1, text), far)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="a flood of pointers cost a change, or the last pointer: let changes wait in "
    "one place, and of each one's pointers the newest in another",
    closed_early="a flood of pointers is no reason to close: of each one's pointers only "
    "the newest has to wait",
    wrong_message="among the pointers, all changes come, each once and in order",
    server_crashed="a full queue raises QueueFull: a pointer may be left out, a change not",
    loop_blocked="this call stops the event loop, and with it everybody",
)
async def test_a_flood_of_pointers_costs_nothing(conversation, word):
    """a flood of pointers costs no change and no connection"""
    wall, texts, last = word(), [word() for _ in range(5)], {"x": 7, "y": 7}
    ana, ben, eva = await staff(conversation, wall, "ana", "ben", "eva")

    flood = ana.push(json.dumps({"type": "point", "x": 1, "y": 1}), times=FLOOD)
    for text in texts:
        await ben.send(pin(text))
    await flood
    await ana.send({"type": "point"} | last)

    pointer = {"type": "pointed", "who": "ana"}
    for client in [ben, eva]:
        events, wanted = [], [pinned(n, text) for n, text in enumerate(texts, 1)]
        while pointer | last not in events or wanted[-1] not in events:
            events.append(await client.receive(f"{texts[4]} pinned, and {last} pointed at"))
        pointers = [pointer | last, pointer | {"x": 1, "y": 1}]
        changes = [event for event in events if event not in pointers]
        if changes != wanted:
            got = f"{client.name} ← {json.dumps(changes)[:300]}"
            raise Failure(Outcome.WRONG_MESSAGE, f"each change once: {texts}", got)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    silence="the last pointer of somebody never came, for other pointers were waiting: of "
    "each name the newest waits until it is sent. One place for all names loses it, and so "
    "does leaving out what comes while something waits",
    closed_early="a flood of pointers is no reason to close: of each one's pointers only "
    "the newest has to wait",
    wrong_message="a pointer goes to the others and not back, with the name of whom it "
    "belongs to",
    server_crashed="a full queue raises QueueFull: of each name the newest pointer waits",
    loop_blocked="this call stops the event loop, and with it everybody",
)
async def test_the_last_pointer_of_each_arrives(conversation, word):
    """who was behind hears the last pointer of everybody"""
    wall, painters = word(), ["ana", "ben"]
    names = [f"{painter}-{word()}-".ljust(LONG_NAME, "x") for painter in painters]
    ana, ben = [
        await conversation.join(painter, f"/walls/{wall}/{name}")
        for painter, name in zip(painters, names, strict=True)
    ]
    for client in [ana, ben]:
        await client.expect(picture([]))
    zoe = await conversation.join("zoe", f"/walls/{wall}/zoe", reads=False)

    first, last = {"x": 1, "y": 1}, {"x": 7, "y": 7}
    pointers = [{"type": "pointed", "who": name} for name in names]
    for at in [*[first] * POINTERS, last]:
        for client in [ana, ben]:
            await client.send({"type": "point"} | at)
        await ana.expect(pointers[1] | at)
        await ben.expect(pointers[0] | at)

    zoe.read_again()
    missing = [pointer | last for pointer in pointers]
    while missing:
        heard = await zoe.receive(f"{missing[0]['who'][:3]}'s last pointer, {last}")
        missing = [pointer for pointer in missing if pointer != heard]


def expect_same(*editors):
    """All of these must have the same picture."""
    for one, another in zip(editors, editors[1:], strict=False):
        if one.notes != another.notes:
            names = f"{one.client.name} and {another.client.name}"
            different = sorted(
                number
                for number in one.notes.keys() | another.notes.keys()
                if one.notes.get(number) != another.notes.get(number)
            )
            got = f"the notes {different} differ"
            raise Failure(Outcome.WRONG_MESSAGE, f"{names} see the same wall", got)


@pytest.mark.task(4, points=1)
@pytest.mark.likely(
    wrong_message="somebody joined between two changes and saw one twice or never: take "
    "the picture and join the others with no `await` between",
    silence="a line that is cut ends its own handler, and no change of another's",
    closed_early="a line that is cut ends its own handler, and nobody else's: catch what "
    "sending raises where you send",
    server_crashed="a line that is cut ends its own handler, quietly: catch what sending "
    "raises where you send, and take the connection out in `finally`",
)
async def test_cut_lines_leave_no_gap(conversation, server, word):
    """lines are cut, and all see the same wall in the end"""
    wall, end = word(), word()
    path = f"/walls/{wall}/"
    editors = []

    async def come(who):
        editor = Editor(await conversation.join(who, path + who))
        editors.append(editor)
        await editor.hear('{"type": "wall", …}')
        return editor

    async def edit(who):
        editor = await come(who)
        for _ in range(CUTS):
            for _ in range(3):
                text = word()
                await editor.client.send(pin(text))
                number = await editor.hear_until(text)
                at = {"x": number, "y": number}
                await editor.client.send({"type": "move", "id": number} | at)
            await editor.client.send({"type": "tear", "id": number})
            editor.client.vanish()
            editors.remove(editor)
            editor = await come(who)
            await come(f"guest-{len(editors)}")

    async def scribble(editor):
        while not over.is_set():
            text = word()
            await editor.client.send(pin(text))
            number = await editor.hear_until(text)
            await editor.client.send({"type": "tear", "id": number})

    over = asyncio.Event()
    ana = await come("ana")
    scribbling = asyncio.create_task(scribble(ana))
    try:
        await asyncio.gather(edit("ben"), edit("eva"))
    finally:
        over.set()
        await asyncio.wait([scribbling])
    scribbling.result()
    await ana.client.send(pin(end))
    for editor in editors:
        if end not in [note["text"] for note in editor.notes.values()]:
            await editor.hear_until(end)
    await come("late")

    expect_same(*editors)
    for editor in editors:
        await editor.client.leave()
    await server.expect_quiet()


@pytest.mark.task(4, points=1)
@pytest.mark.likely(
    silence="whoever awaits the sending waits for the slowest: give everybody a place "
    "where changes wait, and a task that sends. If that place is full, end the connection: "
    "a change that is dropped is missing for ever",
    wrong_message="who was slow in reading has another wall than the others: the picture "
    "and every change after it wait in one place, in order, and none is dropped",
    closed_early="somebody who reads was closed. Either another's full queue or failing "
    "send ended this handler; or this one's own place was full although its client reads: "
    "it must hold a whole wall, and what arrives together is received without a pause, so "
    "give the tasks that send a turn (await asyncio.sleep(0))",
    server_crashed="a full queue raises QueueFull: that is the end of that connection, and "
    "not of the handler of whoever made the change",
    loop_blocked="this call stops the event loop, and with it everybody",
)
async def test_who_stops_reading_delays_nobody(conversation, word):
    """who stops reading delays nobody, and has no gap in the end"""
    wall, noise, end = word(), random.Random(word()), word()
    ana, ben = [await enter(conversation, wall, name) for name in ["ana", "ben"]]
    # Together larger than what fits in the buffers of a connection.
    for number in range(1, ROOM):
        text = noise.randbytes(LARGE // 2).hex()
        await change(pin(text), pinned(number, text), ana, ben)

    path = f"/walls/{wall}/zoe"
    zoe = Editor(await conversation.join("zoe", path, reads=False))
    for number in range(ROOM, ROOM + ROUNDS):
        text = noise.randbytes(LARGE // 2).hex()
        await change(pin(text), pinned(number, text), ana, ben)
        at = {"id": 1, "x": number, "y": 0}
        await change({"type": "move"} | at, {"type": "moved"} | at, ben, ana)
        torn = {"id": number}
        await change({"type": "tear"} | torn, {"type": "torn"} | torn, ben, ana)
    ana.push(json.dumps({"type": "move", "id": 2, "x": 5, "y": 5}), times=FLOOD)
    for _ in range(FLOOD):
        for client in [ana, ben]:
            await client.expect({"type": "moved", "id": 2, "x": 5, "y": 5})
    await change(pin(end), pinned(ROOM + ROUNDS, end), ana, ben)

    eva = Editor(await conversation.join("eva", f"/walls/{wall}/eva"))
    await eva.hear()
    zoe.client.read_again()
    if not await hears_the_end(zoe, end):
        zoe = Editor(await conversation.join("zoe again", path))
        await zoe.hear()
    expect_same(eva, zoe)


async def hears_the_end(editor, text):
    """Whether somebody hears every change up to this text; if not, the line must end."""
    try:
        await editor.hear_until(text)
    except Failure as failure:
        if failure.outcome is not Outcome.CLOSED_EARLY:
            raise
        return False
    return True


@pytest.mark.task(4, points=1)
@pytest.mark.likely(
    unexpected_message="all of this waited for one who does not read, and more would have: "
    "bound the place where changes wait, and if it is full, close with 1013",
    wrong_message="whoever is too far behind is closed with 1013",
    silence="whoever is too far behind is closed with 1013, and delays nobody until then",
    closed_early="the one who does not read is nobody else's business",
    server_crashed="a full queue raises QueueFull: that is the end of that connection, and "
    "not of the handler of whoever made the change",
    loop_blocked="this call stops the event loop, and with it everybody",
)
async def test_who_is_too_far_behind_is_closed(conversation, server, word):
    """who is too far behind is closed with 1013"""
    wall, noise = word(), random.Random(word())
    ana = await enter(conversation, wall, "ana")
    zoe = await conversation.join("zoe", f"/walls/{wall}/zoe", reads=False)

    text = noise.randbytes(LARGE // 2).hex()
    for number in range(1, FAR + 1):
        await change(pin(text), pinned(number, text), ana)
        await change({"type": "tear", "id": number}, {"type": "torn", "id": number}, ana)
    await change(pin(text), pinned(FAR + 1, text), ana)
    moved = {"id": FAR + 1, "x": 5, "y": 5}
    ana.push(json.dumps({"type": "move"} | moved), times=FURTHER)
    for _ in range(FURTHER):
        await ana.expect({"type": "moved"} | moved)

    wanted = "zoe's connection is closed with code 1013"
    zoe.read_again()
    # The wall as it was comes first.
    left = 1 + 2 * FAR + 1 + FURTHER
    while await zoe.hears():
        left -= 1
        if not left:
            got = f"zoe ← all of {2 * FAR + FURTHER} changes, which have waited for her"
            raise Failure(Outcome.UNEXPECTED_MESSAGE, wanted, got)
        # One who reads at leisure: nothing gets much time to send without a pause.
        server.report()
    # No close frame reaches one who has not read for long.
    if zoe.code not in (1013, 1006):
        raise Failure(Outcome.WRONG_MESSAGE, wanted, f"it is closed with {zoe.code}")
