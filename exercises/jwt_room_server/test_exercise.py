"""The checks of the laboratory: badges that are good, forged, incomplete, or run out."""

import asyncio
import contextlib
import math
import time
import warnings
from urllib.parse import quote

import jwt
import pytest
from websockets.exceptions import ConnectionClosed

from exercises.grader.clients import DEADLINE
from exercises.grader.outcomes import Failure, Outcome
from exercises.grader.timeline import Kind

HOUR = 3600  # seconds
PAUSE = 0.02  # seconds between two texts of somebody who talks all the time
LIVES = [0.3, 3, 6]  # seconds at least; the later ones are for a machine that is too busy


def badge(key, name, algorithm="HS256", **claims):
    """A badge, good for an hour unless the claims say otherwise; None takes one away."""
    claims = {"sub": name, "exp": int(time.time()) + HOUR} | claims
    given = {claim: value for claim, value in claims.items() if value is not None}
    with warnings.catch_warnings():
        # The key is too short for HS512, and that is no business of these checks.
        warnings.simplefilter("ignore")
        return jwt.encode(given, key, algorithm)


def door(room, badge):
    return f"/lab/{room}?badge={quote(badge)}"


async def expect_welcome(guest, name, *texts):
    """The guest is greeted by name, and answered text by text."""
    await guest.expect(f"Come in, {name}")
    for text in texts:
        await guest.send(text)
        await guest.expect(f"{name} wrote: {text}")


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    closed_early="this badge is good: it is signed with the value of SECRET_KEY and HS256, "
    "and holds sub and exp",
    silence="a guest with a good badge hears `Come in, {sub}` before saying anything, and "
    "every text is answered",
    wrong_message="the name is the claim `sub` of the badge",
    server_crashed="the exception is in your code; its last line stands above",
)
async def test_a_good_badge_opens_the_door(conversation, server, secrets, word):
    """a guest with a good badge is greeted by name, and answered"""
    key, room, ana, ben = secrets["SECRET_KEY"], word(), word(), f"Zoë {word()}"
    first = await conversation.join("first", door(room, badge(key, ana)))
    second = await conversation.join("second", door(room, badge(key, ben)))

    await expect_welcome(first, ana, word(), word())
    await expect_welcome(second, ben, word())
    await first.leave()
    second.vanish()

    await server.expect_quiet()


@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    closed_early="a code can be read only after the handshake: accept, and close with "
    "4001; a parameter without a default would refuse by itself",
    unexpected_message="this badge is forged: believe only what is signed with the key and "
    "with HS256, whatever the badge itself says",
    wrong_message="the code is 4001, with a reason",
    silence="close right after accept, without waiting for the guest to speak",
    server_crashed="all that can be wrong with a token is a jwt.InvalidTokenError: catch "
    "it where you decode, and allow one algorithm only",
)
async def test_a_forged_badge_is_told_4001(conversation, server, secrets, word):
    """no badge, or a forged one: 4001 after accept"""
    key, name = secrets["SECRET_KEY"], word()
    head, _, signature = badge(key, word()).split(".")
    payload = badge(key, name).split(".")[1]

    forged = {
        "no words": "",
        "a word": word(),
        "dots": "clé.clé.clé",
        "other key": badge(word() * 4, name),
        "other name": f"{head}.{payload}.{signature}",
        "unsigned": badge(None, name, "none"),
        "HS512": badge(key, name, "HS512"),
    }
    guest = await conversation.join("no badge", f"/lab/{word()}")
    await guest.expect_close(4001, with_reason=True)
    for kind, token in forged.items():
        guest = await conversation.join(kind, door(word(), token))
        await guest.expect_close(4001, with_reason=True)

    await server.expect_quiet()


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    unexpected_message="PyJWT looks at `exp` only where there is one, and at `sub` not at "
    "all: its option `require` insists on them",
    server_crashed="a badge may lack what you look for in it: PyJWT's option `require` "
    "insists on claims",
    closed_early="a code can be read only after the handshake: accept, and close with 4001",
    wrong_message="the code is 4001, with a reason",
    silence="close right after accept, without waiting for the guest to speak",
)
async def test_an_incomplete_badge_is_told_4001(conversation, server, secrets, word):
    """a badge that has run out, or lacks a claim: 4001"""
    key, name = secrets["SECRET_KEY"], word()

    bad = {
        "run out": badge(key, name, exp=int(time.time()) - 60),
        "without exp": badge(key, name, exp=None),
        "without sub": badge(key, None),
    }
    for kind, token in bad.items():
        guest = await conversation.join(kind, door(word(), token))
        await guest.expect_close(4001, with_reason=True)

    await server.expect_quiet()


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    unexpected_message="the badge is good, but the office is somebody else's: compare the "
    "whole rest of the room's name with `sub`",
    wrong_message="in somebody else's office a good badge is 4003, and a bad one 4001",
    closed_early="a code can be read only after the handshake: accept, and close with 4003",
    silence="close right after accept, without waiting for the guest to speak",
)
async def test_an_office_is_closed_to_others(conversation, server, secrets, word):
    """whoever enters the office of somebody else is told 4003"""
    key, owner = secrets["SECRET_KEY"], word()
    office = f"office-{owner}"

    for other in [word(), owner[:4], owner[5:], f"{owner}-2", office, "office"]:
        guest = await conversation.join("other", door(office, badge(key, other)))
        await guest.expect_close(4003, with_reason=True)
    guest = await conversation.join("thief", door(office, badge(word() * 4, owner)))
    await guest.expect_close(4001, with_reason=True)

    await server.expect_quiet()


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    closed_early="the owner of an office is all that follows `office-`, and a room whose "
    "name does not begin so is for everybody",
    wrong_message="in an office, too, the name is the claim `sub` of the badge",
)
async def test_an_office_is_open_to_its_owner(conversation, secrets, word):
    """an office is open to its owner, and other rooms to everybody"""
    key, owner = secrets["SECRET_KEY"], word()

    guest = await conversation.join("owner", door(f"office-{owner}", badge(key, owner)))
    await expect_welcome(guest, owner, word())
    for room in [f"post-office-{word()}", "offices", word()]:
        guest = await conversation.join("owner", door(room, badge(key, owner)))
        await expect_welcome(guest, owner, word())


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    closed_early="without a badge in the query the cookie `badge` counts, if there is no "
    "Origin, or one with the host and port of the header Host",
    wrong_message="the code for a bad badge is 4001, wherever it comes from",
    unexpected_message="the badge in the cookie is checked as the one in the query is",
)
async def test_a_cookie_opens_the_door(conversation, server, secrets, word):
    """the cookie opens the door, also from a page of our own"""
    key, name = secrets["SECRET_KEY"], word()
    cookie = {"Cookie": f"theme=dark; badge={badge(key, name)}"}

    for origin in [{}, {"Origin": server.http_url}]:
        guest = await conversation.join("guest", f"/lab/{word()}", headers=cookie | origin)
        await expect_welcome(guest, name, word())

    forged = {"Cookie": f"badge={badge(word() * 4, name)}"}
    thief = await conversation.join("thief", f"/lab/{word()}", headers=forged)
    await thief.expect_close(4001, with_reason=True)


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    unexpected_message="a browser has added the cookie to what a page of another site "
    "asked for: compare all that follows `://` in Origin with Host, and refuse",
    wrong_message="the handshake is refused with HTTP 403: a WebSocketException that is "
    "raised before accept does it",
    closed_early="a badge in the query is welcome from every page: only the cookie is "
    "added by the browser itself",
)
async def test_a_cookie_from_elsewhere_is_refused(conversation, server, secrets, word):
    """a cookie that comes with a foreign origin is refused"""
    token, name = badge(secrets["SECRET_KEY"], word()), word()
    cookie = {"Cookie": f"badge={token}"}

    for origin in [
        "https://elsewhere.example",
        f"http://not-127.0.0.1:{server.port}",
        f"http://127.0.0.1:{server.port - 1}",
        "null",
    ]:
        headers = cookie | {"Origin": origin}
        await conversation.expect_refusal("page", f"/lab/{word()}", headers=headers)

    path = door(word(), badge(secrets["SECRET_KEY"], name))
    headers = {"Origin": "https://elsewhere.example"}
    guest = await conversation.join("guest", path, headers=headers)
    await expect_welcome(guest, name, word())


@pytest.mark.task(4, points=2)
@pytest.mark.likely(
    silence="the badge has run out, and the connection is open: put a time limit around "
    "the whole conversation, not around one message, and wait for no message to look",
    closed_early="close with 4001 when the badge runs out: not before, and not by "
    "returning alone",
    wrong_message="the code is 4001, with a reason",
    unexpected_message="the guest hears nothing but answers: close with 4001",
    server_crashed="the time limit raises TimeoutError: catch it, and close with 4001",
)
async def test_a_badge_runs_out(conversation, server, secrets, word):
    """a badge that runs out closes then, whether one talks or not"""
    ana, ben, exp = await guests_for_a_moment(conversation, secrets["SECRET_KEY"], word)
    # The moment at which the badges run out, on the clock of the timeline.
    moment = exp - time.time() + time.monotonic() - conversation.timeline.started

    if await talk(ben, word(), until=exp + DEADLINE):
        raise Failure(
            Outcome.SILENCE,
            "ben's connection is closed with 4001 when the badge runs out",
            f"it was still open {DEADLINE:g} s later",
            ben.note(Kind.NOTE, "… still open"),
        )
    await ana.expect_close(4001, with_reason=True)
    while await ben.hears():
        pass  # the answers
    await ben.expect_close(4001, with_reason=True)
    for closed in conversation.said(Kind.CLOSED)[-2:]:
        # Clocks are coarse on some systems.
        if closed.at < moment - 0.1:
            raise Failure(
                Outcome.CLOSED_EARLY,
                f"{closed.who} may stay until the badge runs out",
                f"closed {moment - closed.at:.2f} s before",
                closed,
            )
    await server.expect_quiet()


async def guests_for_a_moment(conversation, key, word):
    """Two guests whose badges run out soon, but after both were greeted."""
    room = word()
    for life in LIVES:
        exp = math.ceil(time.time() + life)
        guests = []
        try:
            for name in ["ana", "ben"]:
                path = door(room, badge(key, name, exp=exp))
                guests.append(await conversation.join(name, path))
                await guests[-1].expect(f"Come in, {name}")
        except Failure:
            # A machine that is too busy may take longer for this than the badges last.
            if time.time() < exp or life == LIVES[-1]:
                raise
        else:
            break
    return *guests, exp


async def talk(guest, text, until):
    """Say something all the time; whether the connection is still open at that time."""
    guest.note(Kind.SENT, "texts, all the time")
    with contextlib.suppress(ConnectionClosed):
        while time.time() < until:
            await guest.connection.send(text)
            await asyncio.sleep(PAUSE)
        return True
    return False
