"""The checks of the games club: tables, dice, whispers, and messages without sense."""

import json

import pytest

from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.serving import SETTLE_DEADLINE, until

SECOND = " 2"  # what the timeline calls a player's second tab
ROLLS = 6  # throws of a die of 100 sides; that all are equal happens once in 10**10


def names(word, *first):
    """Names that nobody can know beforehand."""
    return [f"{name}-{word()[:4]}" for name in first]


def player_of(tab):
    return tab.name.removesuffix(SECOND)


def seated(player, others):
    """What is announced when a player comes to a table with these tabs."""
    players = {player, *map(player_of, others)}
    return {"kind": "seated", "who": player, "players": sorted(players)}


async def sit(conversation, table, player, *others, which=""):
    """A tab of a player, who has heard that it sits at the table."""
    tab = await conversation.join(player + which, f"/club/{table}/{player}")
    await tab.expect(seated(player, others))
    return tab


async def company(conversation, table, *players):
    """A tab for each player; everybody has heard of everybody."""
    tabs = []
    for player in players:
        newcomer = await sit(conversation, table, player, *tabs)
        for tab in tabs:
            await tab.expect(seated(player, tabs))
        tabs.append(newcomer)
    return tabs


async def say(speaker, text, turn, *others):
    """Somebody says a text, and it is the next thing that everybody hears."""
    await speaker.send({"kind": "say", "text": text})
    said = {"kind": "said", "turn": turn, "who": player_of(speaker), "text": text}
    for tab in [speaker, *others]:
        await tab.expect(said)


async def go(tab, *rest):
    """A player goes, and the rest hear of it."""
    await tab.leave()
    for other in rest:
        await other.expect({"kind": "gone", "who": player_of(tab)})


def is_error(heard):
    """Whether a message is an error with a reason."""
    error = heard if isinstance(heard, dict) and heard.get("kind") == "error" else {}
    return isinstance(error.get("reason"), str) and error["reason"] != ""


async def expect_error(tab):
    """The next message must be an error with a reason."""
    wanted = '{"kind": "error", "reason": "…"}'
    heard = await tab.receive(wanted)
    if not is_error(heard):
        got = f"{tab.name} ← {json.dumps(heard)}"
        raise Failure(Outcome.WRONG_MESSAGE, f"{tab.name} ← {wanted}", got)


async def noticed(server, *, left):
    """Wait until the server has seen who left, and only so many handlers still run."""
    await until(lambda: server.report().handlers <= left, SETTLE_DEADLINE)


@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    wrong_message="compare the two objects key by key; `players` is sorted, `turn` counts "
    "from 1, and what is sent is JSON and not Python's way to print a dictionary",
    silence="everybody at the table hears everything, newcomer and speaker included",
    closed_early="the route is `/club/{table}/{player}`; the handler receives in a loop",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_people_talk_at_a_table(conversation, word):
    """everybody at a table hears who comes and what is said"""
    table = word()
    players = names(word, "zoe", "ana", "ben")
    zoe, ana, ben = await company(conversation, table, *players)

    await say(ben, word(), 1, ana, zoe)
    await say(zoe, word(), 2, ana, ben)
    texts = [word(), word()]
    for text in texts:
        await ana.send({"kind": "say", "text": text})
    for tab in [ana, ben, zoe]:
        for turn, text in enumerate(texts, 3):
            said = {"kind": "said", "turn": turn, "who": ana.name, "text": text}
            await tab.expect(said)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="a table has its own players and its own turns, and hears nothing of "
    "other tables, whoever sits there",
    silence="the same name at another table is another player there",
    closed_early="the same name at another table is welcome, and stays there",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_tables_hear_nothing_of_each_other(conversation, word):
    """tables hear nothing of each other"""
    here, there = word(), word()
    name, *players = names(word, "ana", "ben", "eve")
    ana, ben = await company(conversation, here, name, players[0])
    other, eve = await company(conversation, there, name, players[1])

    await say(ana, word(), 1, ben)
    await say(other, word(), 1, eve)
    await go(eve, other)
    await say(ben, word(), 2, ana)
    await say(other, word(), 2)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    silence="when receiving raises WebSocketDisconnect, the player has gone: tell the rest",
    wrong_message="who has gone is taken out of the table first, and told of once",
    server_crashed="catch WebSocketDisconnect around the whole conversation, and take the "
    "player out before you tell the rest",
    closed_early="a handler receives for as long as its player stays; sending to one who "
    "has gone raises in another's handler: take it out first, then tell",
)
async def test_the_rest_hear_who_has_gone(conversation, server, word):
    """the rest hear who has gone, and the table goes on"""
    table = word()
    *players, newcomer = names(word, "zoe", "ana", "ben", "eve")
    zoe, ana, ben = await company(conversation, table, *players)

    await go(ben, zoe, ana)
    eve = await sit(conversation, table, newcomer, ana, zoe)
    for tab in [zoe, ana]:
        await tab.expect(seated(newcomer, [ana, zoe]))
    await say(ana, word(), 1, zoe, eve)

    await go(zoe, ana, eve)
    await go(ana, eve)
    await go(eve)
    await server.expect_quiet()


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    wrong_message="throw the die once, and send the same object to everybody; a throw "
    "takes a turn, and `result` lies between 1 and `sides`",
    silence="a message is told apart by its `kind`; a throw reaches everybody at the table",
    closed_early="a message of another kind is no reason to close: look at `kind` first",
    server_crashed="the exception is in your handler: a throw has `sides` and no `text`",
)
async def test_everybody_sees_the_same_die(conversation, word):
    """everybody sees the same die, and a throw takes a turn"""
    players = names(word, "ana", "ben", "eve")
    ana, ben, eve = await company(conversation, word(), *players)
    await say(ben, word(), 1, ana, eve)

    results = []
    for turn, sides in enumerate([2, *[100] * ROLLS], 2):
        await ana.send({"kind": "roll", "sides": sides})
        wanted = {"kind": "rolled", "turn": turn, "who": ana.name, "sides": sides}
        heard = await ana.receive(json.dumps(wanted | {"result": "…"}))
        result = heard.get("result") if isinstance(heard, dict) else None
        right = type(result) is int and 1 <= result <= sides
        if not right or heard != wanted | {"result": result}:
            expected = f"{ana.name} ← {json.dumps(wanted)}, and a result from 1 to {sides}"
            got = f"{ana.name} ← {json.dumps(heard)}"
            raise Failure(Outcome.WRONG_MESSAGE, expected, got)
        for tab in [ben, eve]:
            await tab.expect(heard)
        results.append(result)
    if len(set(results[1:])) == 1:
        got = f"{ROLLS} times {result}"
        raise Failure(Outcome.WRONG_MESSAGE, "a die falls now here, now there", got)

    await say(eve, word(), ROLLS + 3, ana, ben)


NO_JSON = ["", "hello", "{", '{"kind": "say", "text": "a"', "{'kind': 'say', 'text': 'a'}"]
NO_OBJECT = ["[]", "null", "7", '"say"', "true", '[{"kind": "say", "text": "a"}]']
NO_KIND = [
    {},
    {"text": "a"},
    {"kind": "dance", "text": "a"},
    {"kind": "said", "turn": 1, "who": "ben", "text": "a"},
    {"kind": None, "text": "a"},
    {"kind": ["say"], "text": "a"},
    {"kind": {"say": "a"}, "text": "a"},
]
NO_FIT = [
    {"kind": "say"},
    {"kind": "say", "sides": 6},
    {"kind": "say", "text": None},
    {"kind": "say", "text": 5},
    {"kind": "say", "text": ["a"]},
    {"kind": "roll"},
    {"kind": "roll", "text": "6"},
    {"kind": "roll", "sides": "many"},
    {"kind": "roll", "sides": None},
    {"kind": "roll", "sides": [6]},
    {"kind": "roll", "sides": 6.5},
    {"kind": "roll", "sides": 1},
    {"kind": "roll", "sides": 0},
    {"kind": "roll", "sides": -6},
    {"kind": "roll", "sides": 101},
]


@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    server_crashed="parsing raises, or a key is missing, or it is no dictionary at all: "
    "catch what the parsing raises inside the loop, and answer with an error",
    closed_early="an error is an answer and not the end, for a binary message too: catch "
    "it inside the loop",
    silence="each message that makes no sense is answered with one error",
    wrong_message='what makes no sense is answered with {"kind": "error", "reason": "…"}, '
    "where `reason` is a text: to its sender alone, and no turn is taken",
)
async def test_what_makes_no_sense_is_answered(conversation, word):
    """what makes no sense is answered with an error, that is all"""
    ana, ben = await company(conversation, word(), *names(word, "ana", "ben"))

    for message in [*NO_JSON, *NO_OBJECT, *NO_KIND, *NO_FIT, word().encode()]:
        await ana.send(message)
        await expect_error(ana)

    await say(ana, word(), 1, ben)
    await say(ben, word(), 2, ana)


async def hear_until(client, text):
    """A client hears this text said in the end."""
    heard = None
    while not (isinstance(heard, dict) and heard.get("text") == text):
        heard = await client.receive(f"what was said: {text}")


DEEP = "[" * 100_000
LONG = '{"kind": "roll", "sides": ' + "9" * 5000 + "}"
ENDLESS = '{"kind": "roll", "sides": 1e999}'
HALF = r'{"kind": "say", "text": "\ud800"}'  # one half of a character that has two


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    server_crashed="json.loads raises more than JSONDecodeError, and passes numbers and "
    "texts that do not fit anywhere: Pydantic's validate_json refuses them all",
    closed_early="json.loads raises more than JSONDecodeError, and passes texts that "
    "cannot be sent again: Pydantic's validate_json refuses them all",
    silence="each message that makes no sense is answered with one error",
    wrong_message="what makes no sense is answered with an error whose `reason` is a text, "
    "to its sender alone, and takes no turn: look whether all is well before you begin",
)
async def test_no_message_is_too_strange(conversation, server, word):
    """no message is too strange to be answered"""
    ana, ben = await company(conversation, word(), *names(word, "ana", "ben"))

    for message in [DEEP, LONG, ENDLESS]:
        await ana.send(message)
        await expect_error(ana)
    await say(ana, word(), 1, ben)

    # Half a character may be refused, passed on or lost; the conversation goes on.
    await ana.send(HALF)
    text = word()
    await ana.send({"kind": "say", "text": text})
    for client in [ana, ben]:
        await hear_until(client, text)

    await go(ana, ben)
    await go(ben)
    await server.expect_quiet()


@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    wrong_message="a whisper is for the tabs of one player at this table, and takes no "
    "turn; a second tab is news to itself alone, and only the last one that goes is told",
    silence="a whisper reaches all tabs of its player; if nobody of that name is at this "
    "table, its sender hears an error; and each tab hears what the table hears",
    closed_early="a second tab is welcome, and the first one stays; an error ends nothing",
    server_crashed="perhaps nobody has that name; and of two tabs only the one that has "
    "closed is taken out",
)
async def test_a_whisper_reaches_one_player_in_all_tabs(conversation, server, word):
    """a whisper reaches one player, in all tabs, and nobody else"""
    table, text = word(), word()
    *players, stranger = names(word, "ana", "ben", "eve", "zoe")
    ana, ben, eve = await company(conversation, table, *players)
    zoe = await sit(conversation, word(), stranger)
    second = await sit(conversation, table, ana.name, ben, eve, which=SECOND)

    await ben.send({"kind": "whisper", "to": ana.name, "text": text})
    for tab in [ana, second]:
        await tab.expect({"kind": "whispered", "who": ben.name, "text": text})
    for to in [zoe.name, word(), "", 7, None, [ana.name]]:
        await ben.send({"kind": "whisper", "to": to, "text": word()})
        await expect_error(ben)
    await ben.send({"kind": "whisper", "to": ana.name})
    await expect_error(ben)
    await say(second, word(), 1, ana, ben, eve)
    await say(zoe, word(), 1)

    await ana.leave()
    await noticed(server, left=4)
    await say(second, word(), 2, ben, eve)
    await eve.send({"kind": "whisper", "to": ana.name, "text": text})
    await second.expect({"kind": "whispered", "who": eve.name, "text": text})
    await go(second, ben, eve)


@pytest.mark.task(4, points=1)
@pytest.mark.likely(
    wrong_message="delete the table when its last player has gone, and not before: its "
    "players and its count go together",
    silence="a line that was cut ends as any other: whatever ended it, `finally` runs",
    closed_early="somebody else's end is no reason to close: send only to who is there",
    server_crashed="only the last one who goes deletes the table, and sends nothing more",
)
async def test_an_empty_table_is_forgotten(conversation, server, word):
    """an empty table is forgotten, any other is not"""
    here, there = word(), word()
    *players, other, newcomer = names(word, "ana", "ben", "eve", "zoe")
    ana, ben = await company(conversation, here, *players)
    eve = await sit(conversation, there, other)
    await say(ana, word(), 1, ben)
    await say(eve, word(), 1)

    await go(ana, ben)
    await say(ben, word(), 2)
    ben.vanish()
    await noticed(server, left=1)

    zoe = await sit(conversation, here, newcomer)
    await say(zoe, word(), 1)
    await say(eve, word(), 2)
    await go(zoe)
    await go(eve)
    await server.expect_quiet()
    ana = await sit(conversation, there, ana.name)
    await say(ana, word(), 1)
