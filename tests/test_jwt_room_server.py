"""The JWT room server believes good tokens alone, and keeps its rooms in order."""

import asyncio
import random
import time
from pathlib import Path
from types import SimpleNamespace

import jwt
import pytest

from exercises.grader.clients import Conversation, http_client
from exercises.grader.serving import ServerProcess, until

EXAMPLE = Path(__file__).parent.parent / "examples" / "jwt_room_server.py"
KEY = "a key of the tests, and long enough for HS256"
LOBBY = "/ws/lobby"
LARGE = random.Random(3).randbytes(32 * 1024).hex()  # 64 KiB that deflate cannot shrink
ENOUGH = 400  # large messages; a stalled client's buffers hold about 60


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", KEY)


@pytest.fixture
async def http(server):
    async with http_client(server.http_url) as http:
        yield http


def sign(user="ana", *, key=KEY, algorithm="HS256", **claims):
    """A token, good for an hour unless the claims say otherwise; None takes one away."""
    claims = {"sub": user, "exp": int(time.time()) + 3600} | claims
    given = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(given, key, algorithm)


def query(user="ana", **claims):
    return f"?token={sign(user, **claims)}"


def cookie(user="ana", **headers):
    return {"Cookie": f"theme=dark; session={sign(user)}"} | headers


def joined(user, size):
    return {"type": "user_joined", "user_id": user, "room_size": size}


def left(user):
    return {"type": "user_left", "user_id": user}


def chat(user, text):
    return {"type": "chat", "user_id": user, "text": text}


def say(text):
    return {"type": "chat", "text": text}


async def meet(conversation, *users, path=LOBBY, **options):
    """Let users join one after the other, and let everybody hear of it."""
    tabs = []
    for user in users:
        tabs.append(await conversation.join(user, path + query(user), **options))
        for tab in tabs:
            await tab.expect(joined(user, len(tabs)))
    return tabs


def writers():
    tasks = asyncio.all_tasks()
    return [task for task in tasks if task.get_coro().__qualname__ == "Member.write"]


async def stall(conversation, user="zoe"):
    return await conversation.join(user, LOBBY + query(user), reads=False)


# Tokens


async def test_a_name_is_exchanged_for_a_token_that_opens_a_room(http, conversation):
    answer = await http.post("/token", json={"user_id": "ana"})
    token = answer.json()["access_token"]

    assert answer.status_code == 200
    assert answer.json() == {"access_token": token, "token_type": "bearer"}
    claims = jwt.decode(token, KEY, ["HS256"], {"require": ["sub", "exp"]})
    assert claims["sub"] == "ana"
    assert 0 < claims["exp"] - time.time() <= 3600
    ana = await conversation.join("ana", f"{LOBBY}?token={token}")
    await ana.expect(joined("ana", 1))


async def test_the_cookie_of_a_token_is_kept_from_scripts_and_other_sites(http):
    answer = await http.post("/token", json={"user_id": "ana"})

    value, *flags = answer.headers["set-cookie"].split("; ")
    assert value == f"session={answer.json()['access_token']}"
    assert {flag.lower() for flag in flags} >= {"httponly", "samesite=strict", "path=/"}
    assert "Secure" not in flags


async def test_over_tls_the_cookie_is_for_tls_alone(http):
    headers = {"X-Forwarded-Proto": "https"}

    answer = await http.post("/token", json={"user_id": "ana"}, headers=headers)

    assert "Secure" in answer.headers["set-cookie"].split("; ")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 422),
        ("{", 422),
        ("[]", 422),
        ("{}", 422),
        ('{"user_id": ""}', 422),
        ('{"user_id": 5}', 422),
        ('{"user_id": NaN}', 422),
        ('{"user_id": 1e999}', 422),
        ('{"user_id": "\\ud800"}', 422),
        ('{"user_id": "%s"}' % ("x" * 65), 422),
        ('{"user_id": "%s"}' % ("x" * 100_000), 413),
        ("[" * 10_000, 400),
    ],
)
async def test_a_name_that_cannot_be_one_gets_no_token(http, body, status):
    headers = {"Content-Type": "application/json"}

    answer = await http.post("/token", content=body, headers=headers)

    assert answer.status_code == status
    assert "set-cookie" not in answer.headers


async def test_without_a_key_each_process_has_its_own(monkeypatch, http, conversation):
    with ServerProcess(EXAMPLE) as process:
        async with http_client(process.http_url) as other:
            answer = await other.post("/token", json={"user_id": "ana"})
        token = answer.json()["access_token"]
        async with Conversation(process.url) as elsewhere:
            ana = await elsewhere.join("ana", f"{LOBBY}?token={token}")
            await ana.expect(joined("ana", 1))

    ana = await conversation.join("ana", f"{LOBBY}?token={token}")
    await ana.expect_close(4001)


async def test_a_short_key_works_and_the_log_warns_of_it():
    with ServerProcess(EXAMPLE, environment={"SECRET_KEY": "secret"}) as process:
        async with http_client() as http:
            answer = await http.post(f"{process.http_url}/token", json={"user_id": "ana"})

        token = answer.json()["access_token"]
        async with Conversation(process.url) as conversation:
            ana = await conversation.join("ana", f"/ws/lobby?token={token}")
            await ana.expect({"type": "user_joined", "user_id": "ana", "room_size": 1})
        assert "minimum recommended length of 32 bytes" in process.log


# Who may enter


BAD_TOKENS = {
    "no token": lambda: "",
    "an empty one": lambda: "?token=",
    "no JWT": lambda: "?token=x",
    "no ASCII": lambda: "?token=%C5%BE.%C5%BE.%FF",
    "of another key": lambda: query(key=KEY[::-1]),
    "of another algorithm": lambda: query(algorithm="HS512", key=KEY * 2),
    "unsigned": lambda: query(algorithm="none", key=None),
    "cut": lambda: query()[:-1],
    "expired": lambda: query(exp=int(time.time()) - 1),
    "without an expiry": lambda: query(exp=None),
    "with a wrong expiry": lambda: query(exp="soon"),
    "for ever": lambda: query(exp=float("inf")),
    "for almost ever": lambda: query(exp=10**400),
    "not yet valid": lambda: query(nbf=int(time.time()) + 1000),
    "of nobody": lambda: query(sub=None),
    "of an empty name": lambda: query(""),
    "of a number": lambda: query(5),
    "of half a surrogate pair": lambda: query("\ud800"),
    "of a long name": lambda: query("x" * 65),
}


@pytest.mark.parametrize("bad", BAD_TOKENS)
async def test_a_bad_token_is_accepted_and_closed_with_4001(conversation, example, bad):
    eve = await conversation.join("eve", LOBBY + BAD_TOKENS[bad]())

    await eve.expect_close(4001, "no valid token")
    assert example.rooms == {}


async def test_a_bad_cookie_is_accepted_and_closed_with_4001(conversation):
    eve = await conversation.join("eve", LOBBY, headers={"Cookie": "session=x"})

    await eve.expect_close(4001, "no valid token")


async def test_a_cookie_is_believed_from_our_own_origin(conversation, server):
    headers = cookie(Origin=server.http_url)

    ana = await conversation.join("ana", LOBBY, headers=headers)

    await ana.expect(joined("ana", 1))


async def test_a_cookie_of_a_program_is_believed_without_an_origin(conversation):
    ana = await conversation.join("ana", LOBBY, headers=cookie())

    await ana.expect(joined("ana", 1))


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://[",
    ],
)
async def test_a_cookie_from_a_foreign_origin_is_refused(conversation, origin):
    headers = cookie(Origin=origin)

    await conversation.expect_refusal("eve", LOBBY, 403, headers=headers)


async def test_an_origin_that_begins_like_ours_is_foreign(conversation, server):
    for origin in [f"{server.http_url}.evil.example", f"{server.http_url}0"]:
        await conversation.expect_refusal("eve", LOBBY, headers=cookie(Origin=origin))


async def test_a_token_in_the_query_may_come_from_any_origin(conversation):
    headers = cookie("ben", Origin="https://elsewhere.example")

    ana = await conversation.join("ana", LOBBY + query("ana"), headers=headers)

    await ana.expect(joined("ana", 1))


async def test_the_room_of_a_user_is_for_that_user_alone(conversation):
    ana = await conversation.join("ana", "/ws/user_ana" + query("ana"))
    await ana.expect(joined("ana", 1))

    for room in ["user_ana", "user_", "user_eve2", "user_EVE", "%75ser_ana"]:
        eve = await conversation.join("eve", f"/ws/{room}" + query("eve"))
        await eve.expect_close(4003, "the room of somebody else")

    await ana.send({"type": "ping"})
    await ana.expect({"type": "pong"})


async def test_a_room_with_a_long_name_is_refused(conversation):
    await conversation.expect_refusal("ana", "/ws/" + "x" * 81 + query(), 403)


# Expiry


def ends_soon(example, seconds=0.3):
    """Let the example think that the tokens of `sign` have so many seconds left."""
    example.time = SimpleNamespace(time=lambda: time.time() + 3600 - seconds)


async def test_a_connection_is_closed_with_4001_when_its_token_expires(
    conversation, example
):
    (ben,) = await meet(conversation, "ben")
    ends_soon(example)
    ana = await conversation.join("ana", LOBBY + query("ana"))
    await ana.expect(joined("ana", 2))

    await ana.expect_close(4001, "the token has expired")

    await ben.expect(joined("ana", 2))
    await ben.expect(left("ana"))
    await ben.send(say("still here"))
    await ben.expect(chat("ben", "still here"))


async def test_talking_does_not_prolong_a_token(conversation, example):
    ends_soon(example)
    ana = await conversation.join("ana", LOBBY + query("ana"))

    while await ana.hears():
        ana.push('{"type": "ping"}', times=1)
    assert (ana.code, ana.reason) == (4001, "the token has expired")


async def test_a_client_that_stops_reading_leaves_when_its_token_expires(
    conversation, example, server
):
    example.CLOSE_TIMEOUT = 0.1
    (ben,) = await meet(conversation, "ben")
    ends_soon(example, 1.0)
    await stall(conversation)
    await ben.expect(joined("zoe", 2))

    heard = None
    while heard != left("zoe"):
        await ben.send(say("x" * 500))
        heard = await ben.receive()

    assert await until(lambda: server.handlers == 1, 5.0)


# The conversation


async def test_everybody_hears_a_chat_its_sender_included(conversation):
    ana, ben, zoe = await meet(conversation, "ana", "ben", "zoe")

    await ana.send(say("hello"))

    for member in [ana, ben, zoe]:
        await member.expect(chat("ana", "hello"))


async def test_only_the_sender_of_a_ping_hears_the_pong(conversation):
    ana, ben = await meet(conversation, "ana", "ben")

    await ana.send({"type": "ping"})
    await ana.expect({"type": "pong"})
    await ana.send(say("hello"))

    await ben.expect(chat("ana", "hello"))


async def test_a_text_is_cut_to_500_characters(conversation):
    ana, ben = await meet(conversation, "ana", "ben")
    texts = ["", "x" * 500, "x" * 501, "🐎" * 501, "<b>\x00\n", "x" * 1024 * 1024]

    for text in texts:
        await ana.send(say(text))

    for text in texts:
        await ben.expect(chat("ana", text[:500]))


async def test_rooms_hear_nothing_of_each_other(conversation):
    (ana,) = await meet(conversation, "ana")
    (ben,) = await meet(conversation, "ben", path="/ws/kitchen")

    await ana.send(say("from ana"))
    await ben.send(say("from ben"))

    await ana.expect(chat("ana", "from ana"))
    await ben.expect(chat("ben", "from ben"))


@pytest.mark.parametrize(
    "nonsense",
    ["", "x", "{", b"\x00\xff", b"", "\x00", "[" * 10_000, "9" * 5_000, '"\\ud800"']
    + ['{"type": "chat", "text": "\\ud800"}'],
)
async def test_what_is_no_json_gets_its_sender_an_error(conversation, nonsense):
    ana, ben = await meet(conversation, "ana", "ben")

    await ana.send(nonsense)

    await ana.expect({"type": "error", "message": "Invalid JSON"})
    await ana.send(say("still here"))
    await ana.expect(chat("ana", "still here"))
    await ben.expect(chat("ana", "still here"))


@pytest.mark.parametrize(
    "wrong",
    ["[]", "5", "null", "NaN", "1e999", '"chat"', "{}", '{"text": "hello"}']
    + ['{"type": "chat"}', '{"type": "chat", "text": null}', '{"type": 5}']
    + ['{"type": "chat", "text": 1e999}', '{"type": "chat", "text": ["hello"]}']
    + ['{"type": "user_left", "user_id": "ben"}', '{"type": "%s"}' % ("x" * 100_000)],
)
async def test_a_wrong_shape_gets_its_sender_another_error(conversation, wrong):
    ana, ben = await meet(conversation, "ana", "ben")

    await ana.send(wrong)

    error = await ana.receive()
    assert error["type"] == "error"
    assert error["message"] != "Invalid JSON"
    assert len(error["message"]) < 200
    await ana.send(say("still here"))
    await ben.expect(chat("ana", "still here"))


async def test_nobody_can_speak_for_somebody_else(conversation):
    ana, ben = await meet(conversation, "ana", "ben")

    await ana.send({"type": "chat", "text": "hello", "user_id": "ben"})

    await ben.expect(chat("ana", "hello"))


# Coming and going


async def test_a_polite_leave_and_a_cut_line_are_told_to_the_rest(conversation):
    ana, ben, zoe = await meet(conversation, "ana", "ben", "zoe")

    await zoe.leave()
    await ana.expect(left("zoe"))
    await ben.expect(left("zoe"))

    ben.vanish()
    await ana.expect(left("ben"))


async def test_two_tabs_of_one_user_are_one_person(conversation):
    ana, ben = await meet(conversation, "ana", "ben")

    tab = await conversation.join("ana", LOBBY + query("ana"))
    await tab.expect(joined("ana", 2))
    await ben.send(say("hello"))
    for member in [ana, tab, ben]:
        await member.expect(chat("ben", "hello"))

    await ana.leave()
    await tab.send(say("still here"))
    await ben.expect(chat("ana", "still here"))
    await tab.leave()
    await ben.expect(left("ana"))


async def test_empty_rooms_leave_nothing_behind(conversation, example, server):
    for n in range(10):
        (ana,) = await meet(conversation, "ana", path=f"/ws/room{n}")
        if n % 2:
            ana.vanish()
        else:
            await ana.leave()

    assert await server.settled()
    assert example.rooms == {}


async def test_fifty_clients_come_and_go_during_a_broadcast(conversation, example):
    ana, ben = await meet(conversation, "ana", "ben")

    async def visit(n):
        visitor = await conversation.join(f"{n}", LOBBY + query(f"visitor {n}"))
        await visitor.send(say("just passing"))
        if n % 2:
            visitor.vanish()
        else:
            await visitor.leave()

    visits = [asyncio.create_task(visit(n)) for n in range(50)]
    for n in range(100):
        await ana.send(say(f"message {n}"))
    await asyncio.gather(*visits)

    said = [chat("ana", f"message {n}") for n in range(100)]
    gone = [left(f"visitor {n}") for n in range(50)]
    heard = []
    while not all(event in heard for event in [*gone, said[-1]]):
        heard.append(await ben.receive())
    assert [event for event in heard if event in said] == said
    assert len(example.rooms["lobby"]) == 2


async def test_a_cancelled_handler_leaves_its_room(conversation, example, server):
    (ana,) = await meet(conversation, "ana")

    # So does uvicorn, once --timeout-graceful-shutdown is over.
    (handler,) = server.uvicorn.server_state.tasks
    handler.cancel()

    assert await server.settled()
    assert example.rooms == {}
    server.lines = [line for line in server.lines if "CancelledError" not in line]


# Clients that do not read


async def test_a_client_that_stops_reading_is_evicted_and_delays_nobody(
    conversation, example
):
    example.TEXT_LIMIT = len(LARGE)
    ana, ben = await meet(conversation, "ana", "ben")
    zoe = await stall(conversation)
    await ana.expect(joined("zoe", 3))
    await ben.expect(joined("zoe", 3))

    for _ in range(ENOUGH):
        await ana.send(say(LARGE))
        await ana.expect(chat("ana", LARGE))
        await ben.expect(chat("ana", LARGE))
        if len(example.rooms["lobby"]) == 2:
            break

    await ben.expect(left("zoe"))
    zoe.read_again()
    heard = 0
    while await zoe.hears():
        heard += 1
    assert heard > 10
    assert zoe.code in (1006, 1013)


async def test_an_evicted_client_that_still_reads_gets_1013(conversation, example):
    example.TEXT_LIMIT, example.BACKLOG = len(LARGE), 1024
    (ana,) = await meet(conversation, "ana")
    zoe = await stall(conversation)
    await ana.expect(joined("zoe", 2))

    while len(example.rooms["lobby"]) == 2:
        await ana.send(say(LARGE))
        await ana.expect(chat("ana", LARGE))
    zoe.read_again()

    while await zoe.hears():
        pass
    assert (zoe.code, zoe.reason) == (1013, "reads too slowly")


async def test_an_evicted_client_whose_line_is_cut_leaves_the_log_quiet(
    conversation, example, server
):
    example.TEXT_LIMIT, example.BACKLOG = len(LARGE), 1024
    (ana,) = await meet(conversation, "ana")
    zoe = await stall(conversation)
    await ana.expect(joined("zoe", 2))

    while len(example.rooms["lobby"]) == 2:
        await ana.send(say(LARGE))
        await ana.expect(chat("ana", LARGE))
    zoe.vanish()

    await ana.expect(left("zoe"))
    assert await until(lambda: server.handlers == 1, 5.0)


async def test_whoever_only_asks_and_never_reads_is_evicted_too(
    conversation, example, server
):
    example.USAGE, example.BACKLOG, example.CLOSE_TIMEOUT = LARGE, 1024, 0.1
    zoe = await stall(conversation)

    zoe.push("[]", times=ENOUGH)

    # The server gives up although zoe never takes the close frame.
    assert await until(lambda: example.rooms == {}, 30.0)
    assert await server.settled()
    assert await until(lambda: writers() == [], 5.0)


async def test_a_reset_while_the_server_sends_drops_nobody_else(conversation, example):
    example.TEXT_LIMIT = len(LARGE)
    ana, ben = await meet(conversation, "ana", "ben")
    zoe = await stall(conversation)
    await ana.expect(joined("zoe", 3))
    await ben.expect(joined("zoe", 3))

    def zoes_writer_waits():
        return any(member.behind for member in example.rooms["lobby"])

    while not await until(zoes_writer_waits, 0):
        await ana.send(say(LARGE))
        await ana.expect(chat("ana", LARGE))
        await ben.expect(chat("ana", LARGE))
    zoe.vanish()

    await ben.expect(left("zoe"))
    await ana.expect(left("zoe"))
    await ana.send(say("still here"))
    await ben.expect(chat("ana", "still here"))


@pytest.mark.serve(ws_ping_interval=0.1, ws_ping_timeout=1.0)
async def test_a_silent_half_open_peer_is_found_by_pings(conversation, example):
    (ana,) = await meet(conversation, "ana")
    await stall(conversation)
    await ana.expect(joined("zoe", 2))

    await ana.expect(left("zoe"))
    assert len(example.rooms["lobby"]) == 1


async def test_a_flood_in_one_breath_evicts_nobody(conversation, example):
    example.BACKLOG = 256 * 1024
    ana, ben = await meet(conversation, "ana", "ben")

    # Deflate makes a few bytes of each, so that hundreds arrive at the server together.
    ana.push('{"type": "chat", "text": "%s"}' % ("x" * 500), times=3_000)

    for _ in range(3_000):
        assert await ben.receive() == chat("ana", "x" * 500)
    assert len(example.rooms["lobby"]) == 2


# The end of the server


async def test_ctrl_c_ends_it_with_connections_open():
    with ServerProcess(EXAMPLE, environment={"SECRET_KEY": KEY}) as process:
        async with Conversation(process.url) as conversation:
            members = await meet(conversation, "ana", "ben", "zoe")
            members[0].push('{"type": "chat", "text": "hello"}', times=2_000)
            await members[1].receive()

            process.interrupt()

            process.wait()
            for member in members:
                while await member.hears():
                    pass
            # Whoever still sends may find the line reset before the close frame is read.
            assert members[0].code in (1006, 1012)
            assert [member.code for member in members[1:]] == [1012, 1012]
        assert "Traceback" not in process.log


# The page


async def sign_in(tab, user):
    await tab.get_by_label("User", exact=True).fill(user)
    await tab.keyboard.press("Enter")
    await tab.get_by_text(f"signed in as {user}").wait_for()


async def connect(tab, room="lobby", by="cookie"):
    await tab.get_by_label("Room", exact=True).fill(room)
    await tab.get_by_label("Token from").select_option(by)
    await tab.get_by_role("button", name="Connect", exact=True).click()


async def test_two_tabs_talk_with_a_token_from_cookie_and_query(server, browser):
    ana = await browser.open(server.http_url)
    ben = await browser.open(server.http_url)
    await sign_in(ana, "ana")
    await connect(ana)
    await ana.get_by_text('"user_id":"ana","room_size":1').wait_for()
    await sign_in(ben, "ben")
    await connect(ben, by="query")
    await ana.get_by_text('"user_id":"ben","room_size":2').wait_for()

    await ben.get_by_label("Message", exact=True).fill("<b>hello</b>")
    await ben.keyboard.press("Enter")
    await ana.get_by_text('"user_id":"ben","text":"<b>hello</b>"').wait_for()
    await ana.get_by_role("button", name="Ping").click()
    await ana.get_by_text('{"type":"pong"}').wait_for()

    await ben.get_by_role("button", name="Disconnect").click()
    await ben.get_by_text("closed with code 1000 Disconnect button").wait_for()
    await ana.get_by_text('"type":"user_left","user_id":"ben"').wait_for()


async def test_the_page_can_read_why_it_was_not_let_in(server, browser):
    tab = await browser.open(server.http_url)

    await connect(tab)
    await tab.get_by_text("closed with code 4001 no valid token").wait_for()
    await sign_in(tab, "eve")
    await connect(tab, room="user_ana")
    await tab.get_by_text("closed with code 4003 the room of somebody else").wait_for()
    assert await tab.evaluate("document.cookie") == ""


async def test_the_page_shows_that_the_server_went_away(process, browser):
    tab = await browser.open(process.http_url)
    await sign_in(tab, "ana")
    await connect(tab)
    await tab.get_by_text("connected", exact=True).wait_for()

    process.interrupt()

    await tab.get_by_text("closed with code 1012").wait_for()
    await tab.get_by_text("not connected").wait_for()
