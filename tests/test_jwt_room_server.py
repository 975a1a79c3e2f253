"""The JWT room server believes good tokens alone, and keeps its rooms in order."""

import asyncio
import random
import time
from pathlib import Path
from types import SimpleNamespace

import jwt
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from exercises.grader.clients import Conversation, http_client
from exercises.grader.serving import ServerProcess, until
from exercises.grader.serving_here import serve_here

EXAMPLE = Path(__file__).parent.parent / "examples" / "jwt_room_server.py"
KEY = "a key of the tests, and long enough for HS256"
LOBBY = "/ws/lobby"
LARGE = random.Random(3).randbytes(30 * 1000).hex()  # 60 kB that deflate cannot shrink
HOUR = 3600  # seconds
PATIENCE = 20.0  # seconds to wait for what may take a while on a busy machine


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", KEY)


@pytest.fixture
async def http(server):
    async with http_client(server.http_url) as http:
        yield http


def sign(user="ana", *, key=KEY, algorithm="HS256", **claims):
    """A token, good for an hour unless the claims say otherwise; None takes one away."""
    claims = {"sub": user, "exp": int(time.time()) + HOUR} | claims
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


def queued(example):
    """How many messages wait for each member of the lobby."""
    return [member.queue.qsize() for member in example.rooms["lobby"]]


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
    assert {flag.lower() for flag in flags} >= {"httponly", "samesite=strict"}
    assert "Secure" not in flags


async def test_the_cookie_works_below_any_prefix_and_nowhere_else(example, http):
    await http.post("/token", json={"user_id": "ana"})
    assert [cookie.path for cookie in http.cookies.jar] == ["/"]

    front = FastAPI()
    front.mount("/user/ana/proxy", example.app)
    async with serve_here(front) as server, http_client(server.http_url) as http:
        await http.post("/user/ana/proxy/token", json={"user_id": "ana"})
        (cookie,) = http.cookies.jar
        async with Conversation(server.url) as conversation:
            headers = {"Cookie": f"session={cookie.value}", "Origin": server.http_url}
            ana = await conversation.join(
                "ana", "/user/ana/proxy/ws/lobby", headers=headers
            )
            await ana.expect(joined("ana", 1))
    assert cookie.path == "/user/ana/proxy"


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
    ],
)
async def test_a_name_that_cannot_be_one_gets_no_token(http, body, status):
    headers = {"Content-Type": "application/json"}

    answer = await http.post("/token", content=body, headers=headers)

    assert answer.status_code == status
    assert "set-cookie" not in answer.headers


async def test_a_deeply_nested_body_gets_no_token(http):
    headers = {"Content-Type": "application/json"}

    answer = await http.post("/token", content="[" * 10_000, headers=headers)

    # Pythons before 3.14 give up at the depth, later ones at the missing end.
    assert answer.status_code in (400, 422)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 16385\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n4001\r\n"],
    ids=["with its length", "in chunks"],
)
async def test_a_body_over_the_limit_is_refused_before_it_has_arrived(server, body):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /token HTTP/1.1\r\nHost: here\r\n" + body)
    if b"chunked" in body:
        # As much as the chunk has, and no more: there may be another chunk, or not.
        writer.write(b"[" * 0x4001 + b"\r\n")

    answer = await asyncio.wait_for(reader.readline(), PATIENCE)
    assert answer.split()[1] == b"413"

    writer.close()
    await writer.wait_closed()


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


def passes(example, seconds):
    """Let the clock of the example be ahead by so many seconds."""
    example.time = SimpleNamespace(time=lambda: time.time() + seconds)


async def meet_before_the_end(conversation, example, *, seconds):
    """Ben with a token for two hours, and Ana with one that has so many seconds left."""
    ben = await conversation.join("ben", LOBBY + query("ben", exp=time.time() + 2 * HOUR))
    await ben.expect(joined("ben", 1))
    passes(example, HOUR - seconds)
    ana = await conversation.join("ana", LOBBY + query("ana", exp=time.time() + HOUR))
    for member in [ana, ben]:
        await member.expect(joined("ana", 2))
    return ana, ben


async def test_a_connection_is_closed_with_4001_when_its_token_expires(
    conversation, example
):
    ana, ben = await meet_before_the_end(conversation, example, seconds=0.3)

    await ana.expect_close(4001, "the token has expired")

    await ben.expect(left("ana"))
    await ben.send(say("still here"))
    await ben.expect(chat("ben", "still here"))


async def test_talking_does_not_prolong_a_token(conversation, example):
    ana, _ = await meet_before_the_end(conversation, example, seconds=0.3)

    async with asyncio.timeout(PATIENCE):
        while await ana.hears():
            ana.push('{"type": "ping"}', times=1)
    assert (ana.code, ana.reason) == (4001, "the token has expired")


async def test_the_first_text_after_the_machine_has_slept_is_not_broadcast(
    conversation, example
):
    ana, ben = await meet_before_the_end(conversation, example, seconds=HOUR)

    # What measures time limits, the clock of the event loop, has stopped meanwhile.
    passes(example, HOUR)
    await ana.send(say("good morning"))

    await ana.expect_close(4001, "the token has expired")
    await ben.expect(left("ana"))
    await ben.send(say("still here"))
    await ben.expect(chat("ben", "still here"))


async def test_a_client_that_stops_reading_leaves_when_its_token_expires(
    conversation, example, server
):
    example.CLOSE_TIMEOUT = 0.1
    _, ben = await meet_before_the_end(conversation, example, seconds=1.0)
    await stall(conversation)

    missing = [left("ana"), left("zoe")]
    async with asyncio.timeout(PATIENCE):
        while missing:
            await ben.send(say("x" * 500))
            heard = await ben.receive()
            missing = [event for event in missing if event != heard]

    assert await until(lambda: server.handlers == 1, PATIENCE)


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
    texts = ["", "x" * 500, "x" * 501, "🐎" * 501, "<b>\x00\n", LARGE]

    for text in texts:
        await ana.send(say(text))

    for text in texts:
        await ben.expect(chat("ana", text[:500]))


async def test_a_message_over_its_limit_is_closed_with_1009_before_it_is_read(
    conversation, example
):
    ana, ben, zoe = await meet(conversation, "ana", "ben", "zoe")
    head, tail = '{"type": "chat", "text": "', '"}'
    longest = head + "x" * (example.LONGEST - len(head + tail)) + tail

    await ana.send(longest)
    await zoe.send(longest + " ")

    await zoe.expect(chat("ana", "x" * 500))
    await zoe.expect_close(1009, "the text is too long")
    for member in [ana, ben]:
        await member.expect(chat("ana", "x" * 500))
        await member.expect(left("zoe"))


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
    + ['{"type": "user_left", "user_id": "ben"}', '{"type": "%s"}' % ("x" * 60_000)],
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


def test_a_client_of_fastapi_comes_and_leaves_quietly(example):
    with TestClient(example.app) as client:
        client.post("/token", json={"user_id": "ana"})
        for _ in range(3):
            with client.websocket_connect(LOBBY) as ana:
                assert ana.receive_json() == joined("ana", 1)
            assert example.rooms == {}


# Clients that do not read


async def meet_a_stalled_one(conversation, example):
    """Ana and Ben, who read, and Zoe, who does not; texts may be long."""
    example.TEXT_LIMIT = len(LARGE)
    ana, ben = await meet(conversation, "ana", "ben")
    zoe = await stall(conversation)
    await ana.expect(joined("zoe", 3))
    await ben.expect(joined("zoe", 3))
    return ana, ben, zoe


async def talk_until(holds, ana, ben):
    """Let Ana say much, which both hear at once."""
    while not holds():
        await ana.send(say(LARGE))
        for member in [ana, ben]:
            assert await member.receive() in [chat("ana", LARGE), left("zoe")]


async def test_a_client_that_stops_reading_is_evicted_and_delays_nobody(
    conversation, example
):
    example.BACKLOG = 20
    ana, ben, zoe = await meet_a_stalled_one(conversation, example)

    await talk_until(lambda: len(example.rooms["lobby"]) == 2, ana, ben)

    await ana.send(say("still here"))
    heard = [None]
    while heard[-1] != chat("ana", "still here"):
        heard.append(await ben.receive())
    zoe.read_again()
    count = 0
    while await zoe.hears():
        count += 1
    assert count > 10
    assert (zoe.code, zoe.reason) == (1013, "reads too slowly")


async def test_an_evicted_client_whose_line_is_cut_leaves_the_log_quiet(
    conversation, example, server
):
    example.BACKLOG = 20
    ana, ben, zoe = await meet_a_stalled_one(conversation, example)
    await talk_until(lambda: len(example.rooms["lobby"]) == 2, ana, ben)

    zoe.vanish()

    assert await until(lambda: server.handlers == 2, PATIENCE)


async def test_one_who_only_asks_and_never_reads_is_read_no_further(
    conversation, example, server
):
    example.USAGE, example.BACKLOG = LARGE, 20
    (ana,) = await meet(conversation, "ana")
    zoe = await stall(conversation)
    await ana.expect(joined("zoe", 2))

    pushing = zoe.push("[]", times=100_000)

    # Once the buffers of the network are full, half of her queue is, and stays so: the
    # server takes nothing more from her.
    steady = 0
    while steady < 100:
        await ana.send({"type": "ping"})
        await ana.expect({"type": "pong"})
        steady = steady + 1 if max(queued(example)) == 11 else 0
    zoe.vanish()
    await ana.expect(left("zoe"))
    await pushing
    assert await until(lambda: len(writers()) == 1, PATIENCE)


async def test_a_reset_while_the_server_sends_drops_nobody_else(conversation, example):
    ana, ben, zoe = await meet_a_stalled_one(conversation, example)
    await talk_until(lambda: max(queued(example)) > 2, ana, ben)

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
    example.BACKLOG = 100
    ana, ben = await meet(conversation, "ana", "ben")

    ana.send_at_once(*['{"type": "chat", "text": "hello"}'] * 3_000)

    for _ in range(3_000):
        assert await ben.receive() == chat("ana", "hello")
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
    await ana.get_by_text('"user_id": "ana", "room_size": 1').wait_for()
    await sign_in(ben, "ben")
    await connect(ben, by="query")
    await ana.get_by_text('"user_id": "ben", "room_size": 2').wait_for()

    await ben.get_by_label("Message", exact=True).fill("<b>hello</b>")
    await ben.keyboard.press("Enter")
    await ana.get_by_text('"user_id": "ben", "text": "<b>hello</b>"').wait_for()
    await ana.get_by_role("button", name="Ping").click()
    await ana.get_by_text('{"type": "pong"}').wait_for()

    await ben.get_by_role("button", name="Disconnect").click()
    await ben.get_by_text("closed with code 1000 Disconnect button").wait_for()
    await ana.get_by_text('"type": "user_left", "user_id": "ben"').wait_for()


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
