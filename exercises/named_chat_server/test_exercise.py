"""The checks of the village line: houses with one telephone, two, or a bad one."""

import pytest

from exercises.grader.serving import SETTLE_DEADLINE, until

LONG = 64 * 1024  # characters
# Texts of that length: twice what the buffers of one that does not read hold, and what
# waits in a queue of a hundred as well.
MANY = 250


def names(word, *first):
    """Names that nobody can know beforehand."""
    return [f"{name}-{word()[:4]}" for name in first]


async def pick_up(conversation, name, *others, which=""):
    """A telephone of somebody, which has heard who is on the line."""
    telephone = await conversation.join(name + which, f"/line/{name}")
    await telephone.expect("On the line: " + ", ".join(sorted({name, *others})))
    return telephone


async def party(conversation, *people):
    """A telephone each, picked up in turn; everybody has heard of everybody."""
    telephones = []
    for number, name in enumerate(people):
        newcomer = await pick_up(conversation, name, *people[:number])
        for telephone in telephones:
            await telephone.expect(f"{name} picked up")
        telephones.append(newcomer)
    return telephones


async def still_heard(speaker, name, text, *, own=(), others=()):
    """A text is the next thing that everybody hears."""
    await speaker.send(text)
    for telephone in [speaker, *own]:
        await telephone.expect(f"You said: {text}")
    for telephone in others:
        await telephone.expect(f"{name} says: {text}")


async def noticed(server, *, left):
    """Wait until the server has seen who left, and only so many handlers still run."""
    await until(lambda: server.report().handlers <= left, SETTLE_DEADLINE)


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    wrong_message="the newcomer hears `On the line: ` and the sorted names, and nothing of "
    "its own coming; the others hear only who picked up",
    silence="tell the newcomer on opening, before it has said anything, and the others too",
    closed_early="the route is `/line/{name}`, and the handler goes on receiving for as "
    "long as the telephone is connected",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_a_newcomer_hears_who_is_there(conversation, word):
    """a newcomer hears who is on the line, the others who came"""
    await party(conversation, *names(word, "zoe", "ana", "eve", "ben"))


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    silence="when receiving raises WebSocketDisconnect, this one hung up: tell the rest",
    wrong_message="who hung up is on the line no more, and the rest hear of it once: take "
    "the connection out first, then tell the rest; and a newcomer hears all names that are "
    "left, in alphabetical order",
    server_crashed="catch WebSocketDisconnect around the whole conversation, take the "
    "connection out, and only then tell the rest: sending to who has left raises",
    closed_early="a handler receives for as long as its telephone is connected; sending to "
    "one that has left raises in another's handler: take it out first, then tell",
)
async def test_the_rest_hear_who_hung_up(conversation, server, word):
    """the rest hear who hung up, and the line forgets them"""
    zoe, ana, ben, eve = names(word, "zoe", "ana", "ben", "eve")
    first, second, third = await party(conversation, zoe, ana, ben)

    await third.leave()
    for telephone in [first, second]:
        await telephone.expect(f"{ben} hung up")
    third = await pick_up(conversation, eve, zoe, ana)
    for telephone in [first, second]:
        await telephone.expect(f"{eve} picked up")
    await first.leave()
    for telephone in [second, third]:
        await telephone.expect(f"{zoe} hung up")

    await second.leave()
    await third.expect(f"{ana} hung up")
    await third.leave()
    await server.expect_quiet()
    await pick_up(conversation, zoe)


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    wrong_message="the speaker hears `You said: ` and the text, the others `NAME says: ` "
    "and the text, and nobody hears both",
    silence="a text reaches everybody: the speaker, and in other words all the others",
    closed_early="receive in a loop, for as long as the telephone is connected",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_the_speaker_hears_another_text(conversation, word):
    """the speaker hears one text, the others another"""
    people = names(word, "zoe", "ana", "ben")
    telephones = await party(conversation, *people)

    for speaker in [1, 0, 2, 1]:
        texts = [word(), word()]
        for text in texts:
            await telephones[speaker].send(text)
        for listener, telephone in enumerate(telephones):
            who = "You said" if listener == speaker else f"{people[speaker]} says"
            for text in texts:
                await telephone.expect(f"{who}: {text}")


@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    silence="each telephone hears everything: a dictionary from name to connection keeps "
    "only the last one of each name",
    wrong_message="telephones of one name are one person: a second one is no news to "
    "anybody, its name is listed once, and all of them hear `You said: `",
    unexpected_message="telephones of one name are one person, and hear everything once",
    closed_early="a second connection of a name is welcome, and the first one stays",
    server_crashed="the exception is in your handler; its last line stands above",
)
async def test_two_telephones_are_one_person(conversation, word):
    """two telephones are one person, and each hears everything"""
    ana, ben = names(word, "ana", "ben")
    first, other = await party(conversation, ana, ben)
    second = await pick_up(conversation, ana, ben, which=" 2")

    await still_heard(other, ben, word(), others=[first, second])
    await still_heard(second, ana, word(), own=[first], others=[other])
    await still_heard(first, ana, word(), own=[second], others=[other])


@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    wrong_message="only the last telephone of a name that hangs up is news: look whether "
    "another one of that name is left",
    silence="the telephones of a name that are left hear everything, and when the last of "
    "them hangs up, the others are told",
    closed_early="one telephone of a person hangs up alone: the other one stays connected",
    server_crashed="a telephone of that name was taken out already: take out the one "
    "connection that has ended, not the name",
)
async def test_the_last_telephone_is_told(conversation, server, word):
    """the others hear of the last telephone that hangs up"""
    ana, ben = names(word, "ana", "ben")
    [other] = await party(conversation, ben)

    # First the newer one hangs up last, then the older one.
    for newer_stays in [True, False]:
        older = await pick_up(conversation, ana, ben)
        await other.expect(f"{ana} picked up")
        newer = await pick_up(conversation, ana, ben, which=" 2")
        goes, stays = (older, newer) if newer_stays else (newer, older)

        await goes.leave()
        await noticed(server, left=2)
        await still_heard(stays, ana, word(), others=[other])
        await still_heard(other, ben, word(), others=[stays])
        await stays.leave()
        await other.expect(f"{ana} hung up")

    await other.leave()
    await server.expect_quiet()


@pytest.mark.task(4, points=1)
@pytest.mark.likely(
    server_crashed="receive_text() fails on a binary message: look at what receive() "
    "returns; and whatever ends the conversation, your own close included, must take the "
    "telephone out: do it in `finally`",
    closed_early="the telephone that sent a binary message is closed with code 1003, and "
    "no other one",
    silence="close the telephone with 1003; whatever ends the conversation, your own close "
    "included, must take the telephone out: do it in `finally`, and tell the rest there",
    wrong_message="the close code is 1003, and only for the telephone that sent it; the "
    "others hear of it if it was the last of that name",
    unexpected_message="a binary message is passed on to nobody: close with code 1003",
)
async def test_noise_ends_one_telephone(conversation, server, word):
    """a binary message ends its own telephone with 1003"""
    ana, ben = names(word, "ana", "ben")
    first, other = await party(conversation, ana, ben)
    second = await pick_up(conversation, ana, ben, which=" 2")

    await second.send(word().encode())
    await second.expect_close(1003)
    await noticed(server, left=2)
    await still_heard(other, ben, word(), others=[first])
    await still_heard(first, ana, word(), others=[other])

    await first.send(word().encode())
    await first.expect_close(1003)
    await other.expect(f"{ana} hung up")
    await still_heard(other, ben, word())
    await other.leave()
    await server.expect_quiet()


@pytest.mark.task(4, points=1)
@pytest.mark.likely(
    server_crashed="a line that was cut ends like any other: send nothing more to it, and "
    "catch what sending to it raises",
    closed_early="a line that was cut ended somebody else's connection: catch what sending "
    "to it raises where it happens",
    silence="whatever ended it, `finally` runs: take it out there, and tell the rest",
    wrong_message="a line that was cut has hung up: the others hear of it once, and only "
    "if it was the last of that name",
)
async def test_lightning_is_hanging_up(conversation, server, word):
    """a line that is cut has hung up, and nobody notices more"""
    ana, ben = names(word, "ana", "ben")
    first, other = await party(conversation, ana, ben)
    second = await pick_up(conversation, ana, ben, which=" 2")

    first.vanish()
    await noticed(server, left=2)
    await still_heard(other, ben, word(), others=[second])
    await still_heard(second, ana, word(), others=[other])

    second.vanish()
    await other.expect(f"{ana} hung up")
    await still_heard(other, ben, word())
    await other.leave()
    await server.expect_quiet()


@pytest.mark.task(4, points=2)
@pytest.mark.likely(
    silence="the loop over all telephones waits for the one that does not read: give each "
    "telephone a bounded queue, and a task that sends what is in it; if there are queues, "
    "put into them without waiting",
    wrong_message="only the telephone that does not read may miss a text; its person has "
    "another one, and is still on the line",
    closed_early="a queue or a connection for each telephone, not for each person: only "
    "the one that does not read may be closed",
    server_crashed="a full queue raises QueueFull: decide what happens to that telephone, "
    "and not in the handler of the speaker",
)
async def test_off_the_hook_delays_nobody(conversation, word):
    """a telephone that reads nothing delays nobody"""
    ana, ben, zoe = names(word, "ana", "ben", "zoe")
    first, other, zoes = await party(conversation, ana, ben, zoe)
    await conversation.join(f"{zoe} 2", f"/line/{zoe}", reads=False)

    for _ in range(MANY):
        text = f"{word()} ".ljust(LONG, "~")
        await still_heard(first, ana, text, others=[other, zoes])
