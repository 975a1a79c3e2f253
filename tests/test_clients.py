"""Clients do on the wire what they say, record it, and name what went wrong."""

import asyncio
import contextlib
import gc
import socket

import pytest
import websockets
from websockets.asyncio.server import serve as serve_websockets

from exercises.grader.clients import Conversation
from exercises.grader.outcomes import NO_REASON, Failure, Outcome
from exercises.grader.serving import until
from exercises.grader.serving_here import serve_here
from exercises.grader.timeline import Kind

PATIENCE = 10.0  # seconds for what comes at once on a machine that has time
SOON = 0.1  # seconds for what never comes
MEBIBYTE = 1024 * 1024


class Wire:
    """The server's end of a connection, as bare as ASGI makes it."""

    def __init__(self, receive, send):
        self.receive, self.send = receive, send

    async def hear(self):
        return await self.receive()

    async def say(self, *messages):
        for message in messages:
            kind = "bytes" if isinstance(message, bytes) else "text"
            await self.send({"type": "websocket.send", kind: message})

    async def close(self, code=1000, reason=""):
        await self.send({"type": "websocket.close", "code": code, "reason": reason})


async def echo(wire):
    while (message := await wire.hear())["type"] == "websocket.receive":
        await wire.say(message["text"])


async def silent(wire):
    while (await wire.hear())["type"] == "websocket.receive":
        pass


def stuck(released):
    """A handler that neither reads nor ends before it is released."""

    async def handler(wire):
        await released.wait()

    return handler


def saying(*messages):
    """A handler that says these messages at once, and then no more."""

    async def handler(wire):
        await wire.say(*messages)
        await silent(wire)

    return handler


@contextlib.asynccontextmanager
async def talk(handler, **settings):
    """Clients of a server that serves every connection with `handler`."""

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await handler(Wire(receive, send))

    async with serve_here(app, **settings) as server, Conversation(server.url) as clients:
        yield clients


@contextlib.contextmanager
def fails(outcome):
    """Expect a `Failure` with this outcome."""
    with pytest.raises(Failure) as failed:
        yield failed
    assert failed.value.outcome is outcome


def story(conversation):
    return [(event.who, event.kind, event.text) for event in conversation.timeline]


# What is recorded


async def test_the_frames_of_all_clients_are_recorded_in_order():
    async with talk(echo) as conversation:
        ana = await conversation.join("ana", "/ws/a")
        ben = await conversation.join("ben", "/ws/b")
        await ana.send("hello")
        await ana.expect("hello")
        await ben.send("hi")
        await ben.expect("hi")
        await ana.leave(4000, "lunch")

    assert story(conversation)[:7] == [
        ("ana", Kind.JOINED, "joined /ws/a"),
        ("ben", Kind.JOINED, "joined /ws/b"),
        ("ana", Kind.SENT, '"hello"'),
        ("ana", Kind.RECEIVED, '"hello"'),
        ("ben", Kind.SENT, '"hi"'),
        ("ben", Kind.RECEIVED, '"hi"'),
        ("ana", Kind.SENT, 'close 4000 "lunch"'),
    ]
    assert ("ana", Kind.CLOSED) in [(who, kind) for who, kind, _ in story(conversation)]
    times = [event.at for event in conversation.timeline]
    assert times == sorted(times)


async def test_the_events_of_some_kinds_can_be_had_alone():
    async with talk(echo) as conversation:
        ana = await conversation.join("ana")
        await ana.send("hello")
        await ana.expect("hello")

        assert [e.kind for e in conversation.said(Kind.SENT)] == [Kind.SENT]


async def test_a_client_reads_in_the_background_without_being_asked():
    async with talk(saying("one", "two")) as conversation:
        await conversation.join("ana")

        received = Kind.RECEIVED
        assert await until(lambda: len(conversation.said(received)) == 2, PATIENCE)


# What is expected and comes


async def test_what_comes_as_expected_is_no_failure():
    messages = ["text", b"bytes", "", '{"b": 1, "a": [null, "x"]}', "[1.5]"]
    async with talk(saying(*messages)) as conversation:
        ana = await conversation.join("ana")

        await ana.expect("text")
        await ana.expect(b"bytes")
        await ana.expect("")
        await ana.expect({"a": [None, "x"], "b": 1})
        await ana.expect([1.5])


async def test_a_message_can_be_taken_whatever_it_is():
    messages = ['{"a": 1}', "plain", b"\xff"]
    async with talk(saying(*messages, "more")) as conversation:
        ana = await conversation.join("ana")

        assert [await ana.receive() for _ in messages] == [{"a": 1}, "plain", b"\xff"]
        assert await ana.hears()


async def test_hears_is_false_when_the_connection_has_ended():
    async with talk(Wire.close) as conversation:
        ana = await conversation.join("ana")

        assert not await ana.hears()


async def test_json_is_sent_as_text():
    async with talk(echo) as conversation:
        ana = await conversation.join("ana")

        await ana.send({"name": "žofie"})

        await ana.expect({"name": "žofie"})


# What is expected and does not come


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Hello", "hello"),
        ("hello ", "hello"),
        ("hello", b"hello"),
        (b"hello", "hello"),
        ("hello", {"text": "hello"}),
        ('{"a": 1, "b": 2}', {"a": 1}),
        ('{"a": true}', {"a": 1}),
        ("[1, 2]", [2, 1]),
        ("NaN", [1]),
        ("[" * 100_000, [1]),
        (b"\xff\xfe", [1]),
    ],
)
async def test_another_message_is_a_wrong_message(said, expected):
    async with talk(saying(said)) as conversation:
        ana = await conversation.join("ana")

        with fails(Outcome.WRONG_MESSAGE) as failed:
            await ana.expect(expected)

    assert failed.value.expected.startswith("ana ← ")
    assert failed.value.got == f"ana ← {failed.value.here.text}"
    assert failed.value.here.kind is Kind.RECEIVED


async def test_a_message_that_came_before_is_the_wrong_one():
    async with talk(saying("too much", "hello")) as conversation:
        ana = await conversation.join("ana")

        with fails(Outcome.WRONG_MESSAGE) as failed:
            await ana.expect("hello")

    assert (failed.value.expected, failed.value.got) == (
        'ana ← "hello"',
        'ana ← "too much"',
    )


async def test_nothing_is_silence():
    async with talk(silent) as conversation:
        ana = await conversation.join("ana")

        with fails(Outcome.SILENCE) as failed:
            await ana.expect("hello", within=SOON)

    assert failed.value.got == "nothing within 0.1 s; the connection is open"
    assert failed.value.here.text == "… still waiting"


async def test_nothing_instead_of_a_close_is_silence():
    async with talk(silent) as conversation:
        ana = await conversation.join("ana")

        with fails(Outcome.SILENCE) as failed:
            await ana.expect_close(1008, "too late", within=SOON)

    wanted = 'ana\'s connection is closed with code 1008 and reason "too late"'
    assert failed.value.expected == wanted


async def test_a_close_instead_of_a_message_is_closed_early():
    async def handler(wire):
        await wire.close(1000, "done")

    async with talk(handler) as conversation:
        ana = await conversation.join("ana")

        with fails(Outcome.CLOSED_EARLY) as failed:
            await ana.expect("hello")

    assert failed.value.got == 'the connection was closed with 1000 "done"'
    assert failed.value.here.kind is Kind.CLOSED


async def test_an_end_without_a_close_frame_says_so():
    async def handler(wire):
        pass

    async with talk(handler) as conversation:
        ana = await conversation.join("ana")

        with fails(Outcome.CLOSED_EARLY) as failed:
            await ana.expect_close(1000)

    assert failed.value.got == "the connection ended without a close frame (1006)"
    assert (ana.code, failed.value.here.text) == (1006, "closed 1006, no close frame")


async def test_sending_to_a_closed_connection_is_closed_early():
    async with talk(Wire.close) as conversation:
        ana = await conversation.join("ana")
        assert not await ana.hears()

        with fails(Outcome.CLOSED_EARLY) as failed:
            await ana.send("hello")

    assert failed.value.expected == 'ana may send "hello"'
    assert failed.value.got == 'the connection was closed with 1000 ""'


async def test_a_server_that_takes_nothing_is_silence(monkeypatch):
    monkeypatch.setattr("exercises.grader.clients.DEADLINE", 0.5)

    released = asyncio.Event()
    async with talk(stuck(released)) as conversation:
        ana = await conversation.join("ana")

        with fails(Outcome.SILENCE) as failed:
            for _ in range(64):
                await ana.send("x" * MEBIBYTE)
        released.set()

    assert failed.value.got == "the server did not take it within 0.5 s"


async def test_a_message_before_the_close_is_unexpected():
    async def handler(wire):
        await wire.say("goodbye")
        await wire.close()

    async with talk(handler) as conversation:
        ana = await conversation.join("ana")

        with fails(Outcome.UNEXPECTED_MESSAGE) as failed:
            await ana.expect_close(1000)

    assert failed.value.got == 'ana ← "goodbye"'


@pytest.mark.parametrize(
    "wanted", [{"code": 1003}, {"code": 1000, "reason": "x"}, {"code": 1000}]
)
async def test_another_code_or_reason_is_wrong(wanted):
    async with talk(Wire.close) as conversation:
        ana = await conversation.join("ana")

        with fails(Outcome.WRONG_MESSAGE) as failed:
            await ana.expect_close(**wanted, with_reason="reason" not in wanted)

    assert failed.value.got == 'the connection was closed with 1000 ""'
    assert failed.value.clue == (NO_REASON if wanted == {"code": 1000} else "")


async def test_a_close_with_the_right_code_and_reason_is_no_failure():
    async def handler(wire):
        await wire.close(4001, "because")

    async with talk(handler) as conversation:
        ana = await conversation.join("ana")

        await ana.expect_close(4001)
        await ana.expect_close(4001, "because")
        await ana.expect_close(4001, with_reason=True)


async def test_an_answer_that_comes_too_soon_is_unexpected():
    async with talk(echo) as conversation:
        ana = await conversation.join("ana")
        await ana.send("hello")

        with fails(Outcome.UNEXPECTED_MESSAGE) as failed:
            await ana.expect("hello", after=60)

    assert failed.value.expected == 'ana ← "hello" after 60 s or more'
    assert failed.value.got.startswith("it came after 0.")


async def test_an_answer_after_the_pause_is_no_failure():
    async def handler(wire):
        text = (await wire.hear())["text"]
        await wire.say(text)
        await silent(wire)

    async with talk(handler) as conversation:
        ana = await conversation.join("ana")
        await ana.send("hello")

        # No answer takes no time at all.
        await ana.expect("hello", after=1e-9)


async def test_the_order_over_several_clients_is_judged():
    async with talk(echo) as conversation:
        ana, ben = await conversation.join("ana"), await conversation.join("ben")
        for client in (ana, ben):
            await client.send("hello")
            await client.expect("hello")

        conversation.expect_order((ana, "hello"), (ben, "hello"))
        with fails(Outcome.UNEXPECTED_MESSAGE) as failed:
            conversation.expect_order((ben, "hello"), (ana, "hello"))

    assert failed.value.expected == 'ben ← "hello" before ana ← "hello"'
    assert failed.value.here.who == "ana"


# The opening handshake


async def refuse(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})


async def test_a_refused_handshake_is_closed_early():
    async with serve_here(refuse) as server, Conversation(server.url) as conversation:
        with fails(Outcome.CLOSED_EARLY) as failed:
            await conversation.join("ana", "/ws/x")

        await conversation.expect_refusal("ana", "/ws/x", 403)

    assert failed.value.expected == "ana may connect to /ws/x"
    assert failed.value.got == "the opening handshake was refused with HTTP 403"
    assert failed.value.here.kind is Kind.REFUSED


async def test_a_refusal_with_another_status_is_wrong():
    async with serve_here(refuse) as server, Conversation(server.url) as conversation:
        with fails(Outcome.WRONG_MESSAGE) as failed:
            await conversation.expect_refusal("ana", "/", 401)

    assert failed.value.got == "the opening handshake was refused with HTTP 403"
    assert failed.value.here is conversation.timeline.events[-1]


async def test_an_accepted_handshake_is_no_refusal():
    async with talk(echo) as conversation:
        with fails(Outcome.UNEXPECTED_MESSAGE) as failed:
            await conversation.expect_refusal("ana", "/")

    assert failed.value.got == "it was accepted"
    assert failed.value.here.kind is Kind.JOINED


@contextlib.asynccontextmanager
async def raw_server(answer):
    """A server that answers every handshake with these bytes; `None` is no answer."""
    handlers = []

    async def handle(reader, writer):
        handlers.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer or b"")
            if answer is None:
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*handlers)


@pytest.mark.parametrize("reads", [True, False])
async def test_a_handshake_that_is_not_answered_is_silence(monkeypatch, reads):
    monkeypatch.setattr("exercises.grader.clients.OPEN_DEADLINE", SOON)
    async with raw_server(None) as url, Conversation(url) as conversation:
        with fails(Outcome.SILENCE) as failed:
            await conversation.join("ana", reads=reads)
        assert "within 0.1 s" in failed.value.got

        with fails(Outcome.SILENCE):
            await conversation.expect_refusal("ana", "/")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-nonsense\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_a_handshake_that_is_cut_off_is_closed_early(answer):
    async with raw_server(answer) as url, Conversation(url) as conversation:
        with fails(Outcome.CLOSED_EARLY) as failed:
            await conversation.join("ana")

    assert failed.value.got


async def test_a_handshake_that_breaks_the_protocol_is_closed_early():
    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "subprotocol": "not-asked-for"})

    async with serve_here(app) as server, Conversation(server.url) as conversation:
        with fails(Outcome.CLOSED_EARLY) as failed:
            await conversation.join("ana")

    assert "subprotocol" in failed.value.got


@pytest.mark.parametrize("reads", [True, False])
async def test_no_server_is_closed_early_and_leaves_no_socket(reads):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    async with Conversation(f"ws://127.0.0.1:{port}") as conversation:
        with fails(Outcome.CLOSED_EARLY) as failed:
            await conversation.join("ana", reads=reads)

    assert failed.value.got.startswith("no connection")
    # An open socket would be a warning, and so an error of this test.
    gc.collect()


async def test_headers_and_options_of_the_handshake_are_passed_on():
    seen = {}

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            seen.update(scope)
            await receive()
            await send({"type": "websocket.accept", "subprotocol": "parrot"})
            await silent(Wire(receive, send))

    async with serve_here(app) as server, Conversation(server.url) as conversation:
        headers, protocols = {"X-Name": "ana"}, ["parrot"]
        path = "/ws?room=1"
        ana = await conversation.join("ana", path, headers=headers, subprotocols=protocols)

        assert ana.connection.subprotocol == "parrot"

    assert (b"x-name", b"ana") in seen["headers"]
    assert (seen["path"], seen["query_string"]) == ("/ws", b"room=1")


async def test_the_headers_that_a_client_brings_are_shown_to_who_asks_for_them():
    headers = {"Origin": "http://evil.example", "Cookie": "badge=" + "x" * 60}
    said = f" (Origin: http://evil.example, Cookie: badge={'x' * 26}…)"

    async with talk(echo) as conversation:
        await conversation.join("ana", "/ws", headers=headers)
        lines = conversation.timeline.text(times=False, headers=True)
        assert lines == f"ana · joined /ws{said}"
        assert conversation.timeline.text(times=False) == "ana · joined /ws"

    async with serve_here(refuse) as server, Conversation(server.url) as conversation:
        await conversation.expect_refusal("eve", "/ws", headers=headers)
        lines = conversation.timeline.text(times=False, headers=True)
        assert lines == f"eve · refused with HTTP 403{said}"
        assert "Origin" not in conversation.timeline.svg()


# Over HTTP


@contextlib.asynccontextmanager
async def answering(status, body=b"", heard=None):
    """Clients of a server that answers each request so, and echoes over WebSocket."""

    async def app(scope, receive, send):
        if scope["type"] == "http":
            if heard is not None:
                heard.append((scope["path"], dict(scope["headers"]), await receive()))
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": body})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await echo(Wire(receive, send))

    async with serve_here(app) as server, Conversation(server.url) as conversation:
        yield conversation


async def test_a_request_and_its_response_stand_among_the_frames():
    async with answering(201, b'{"number": 7}') as conversation:
        ana = await conversation.join("ana")
        response = await conversation.post("till", "/pizzas", {"topping": "chřest"}, 201)
        await ana.send("hello")
        await ana.expect("hello")

    assert (response.status, response.content) == (201, {"number": 7})
    assert story(conversation)[:5] == [
        ("ana", Kind.JOINED, "joined /"),
        ("till", Kind.SENT, 'POST /pizzas {"topping": "chřest"}'),
        ("till", Kind.RECEIVED, '201 {"number": 7}'),
        ("ana", Kind.SENT, '"hello"'),
        ("ana", Kind.RECEIVED, '"hello"'),
    ]
    assert response.here is conversation.timeline.events[2]


@pytest.mark.parametrize(
    ("content", "body"),
    [
        ({"a": "č"}, '{"a": "č"}'.encode()),
        ('{"a": ', b'{"a": '),
        (b"\xff", b"\xff"),
        ("", b""),
    ],
)
async def test_json_is_posted_and_text_and_bytes_as_they_are(content, body):
    heard = []
    async with answering(200, heard=heard) as conversation:
        response = await conversation.post("till", "/a/%C4%8D?b=c", content)

    ((path, headers, message),) = heard
    assert (path, message["body"]) == ("/a/č", body)
    assert headers[b"content-type"] == b"application/json"
    assert response.content == ""


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, Outcome.WRONG_MESSAGE), (500, Outcome.SERVER_CRASHED)],
)
async def test_another_status_is_a_wrong_message_and_500_a_crash(status, outcome):
    async with answering(status, b"oh") as conversation:
        with fails(outcome) as failed:
            await conversation.post("till", "/pizzas", "x", 201, 409)

    assert failed.value.expected == 'till ← 201 or 409 to POST /pizzas "x"'
    assert failed.value.got == f'till ← {status} "oh"'
    assert failed.value.here is conversation.timeline.events[-1]


@pytest.mark.parametrize("body", [b'{"n": 2}', b'{"n": true}', b"n", b""])
async def test_other_content_of_a_response_is_a_wrong_message(body):
    async with answering(200, body) as conversation:
        response = await conversation.post("till", "/", {})

        with fails(Outcome.WRONG_MESSAGE) as failed:
            response.expect({"n": 1})

    assert failed.value.expected == 'till ← 200 {"n": 1}'
    assert failed.value.got.startswith("till ← 200 ")
    assert failed.value.here is response.here


async def test_the_right_content_of_a_response_is_no_failure():
    async with answering(200, b'{"n":1}') as conversation:
        response = await conversation.post("till", "/", {})

        response.expect({"n": 1})


async def test_a_request_that_is_not_answered_is_silence():
    async with raw_server(None) as url, Conversation(url) as conversation:
        with fails(Outcome.SILENCE) as failed:
            await conversation.post("till", "/", {}, within=SOON)

    assert failed.value.got == "no answer to the POST within 0.1 s"
    assert failed.value.here.text == "… still waiting for the answer"


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-nonsense\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_a_response_that_is_cut_off_is_closed_early(answer):
    async with raw_server(answer) as url, Conversation(url) as conversation:
        with fails(Outcome.CLOSED_EARLY) as failed:
            await conversation.post("till", "/", {})

    assert failed.value.got.startswith("no answer: ")
    assert failed.value.here.kind is Kind.LOST


# Leaving, and other manners


async def test_leaving_is_heard_by_the_server_with_code_and_reason():
    heard = []

    async def handler(wire):
        heard.append(await wire.hear())

    async with talk(handler) as conversation:
        ana = await conversation.join("ana")

        await ana.leave(4000, "lunch")

        assert await until(lambda: bool(heard), PATIENCE)
    assert (heard[0]["code"], heard[0]["reason"]) == (4000, "lunch")
    assert (ana.code, ana.reason) == (4000, "lunch")


@contextlib.asynccontextmanager
async def other_end():
    """A server of the `websockets` library, and the errors that end its connections."""
    ends = []

    async def handler(connection):
        try:
            async for _ in connection:
                pass
        except websockets.ConnectionClosed as error:
            ends.append(error)

    async with serve_websockets(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Conversation(f"ws://127.0.0.1:{port}") as conversation:
            yield conversation, ends


async def test_vanishing_is_a_reset_for_the_server():
    async with other_end() as (conversation, ends):
        ana = await conversation.join("ana")

        ana.vanish()

        assert await until(lambda: bool(ends), PATIENCE)
    assert ends[0].rcvd is None
    assert isinstance(ends[0].__cause__, ConnectionResetError)
    assert story(conversation)[-1] == ("ana", Kind.LOST, "vanished (connection reset)")


async def test_vanishing_after_the_end_does_no_harm():
    async with talk(Wire.close) as conversation:
        ana = await conversation.join("ana")
        assert not await ana.hears()
        await ana.connection.wait_closed()

        ana.vanish()
        ana.vanish()
        await ana.leave()


@pytest.mark.parametrize("reads", [True, False])
async def test_who_does_not_read_makes_the_server_wait_until_he_reads_again(reads):
    protocols = []

    async def handler(wire):
        protocols.append(wire.send.__self__)
        await wire.hear()
        for number in range(16):
            await wire.say(f"{number}" + "x" * MEBIBYTE)
        await wire.say("the end")
        await silent(wire)

    async with talk(handler) as conversation:
        zoe = await conversation.join("zoe", reads=reads)
        if reads:
            zoe.stop_reading()
        await zoe.send("go")

        assert await until(lambda: not protocols[0].writable.is_set(), PATIENCE)

        zoe.read_again()
        for _ in range(16):
            assert await zoe.hears(PATIENCE)
        await zoe.expect("the end", within=PATIENCE)
        texts = [event.text for event in conversation.said(Kind.NOTE)]
    assert texts == ["stopped reading", "reads again"]


async def test_who_does_not_read_answers_no_ping():
    settings = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05}
    ended = asyncio.Event()

    async def handler(wire):
        await silent(wire)
        ended.set()

    async with talk(handler, **settings) as conversation:
        await conversation.join("zoe", reads=False)

        async with asyncio.timeout(PATIENCE):
            await ended.wait()


async def test_pushing_ends_when_the_server_has_taken_everything():
    async with talk(echo) as conversation:
        ana = await conversation.join("ana")

        await ana.push("hello", times=3)

        for _ in range(3):
            await ana.expect("hello")
    assert ("ana", Kind.SENT, '3 × "hello"') in story(conversation)


async def test_pushing_ends_when_the_connection_does():
    async with talk(Wire.close) as conversation:
        ana = await conversation.join("ana")

        await asyncio.wait_for(ana.push("x" * MEBIBYTE, times=1000), PATIENCE)


async def test_a_message_announced_too_large_is_refused_with_1009():
    async with talk(echo, ws_max_size=1024) as conversation:
        ana = await conversation.join("ana")

        ana.announce(1025)

        await ana.expect_close(1009)


async def test_the_end_leaves_no_task_and_no_socket_and_waits_for_nobody():
    before, released = asyncio.all_tasks(), asyncio.Event()
    async with talk(stuck(released)) as conversation:
        for name in ("ana", "ben"):
            client = await conversation.join(name)
            client.push("x" * MEBIBYTE, times=64)
        await conversation.join("zoe", reads=False)
        sockets = [
            client.connection.transport.get_extra_info("socket")
            for client in conversation.clients
        ]

        async with asyncio.timeout(PATIENCE):
            await conversation.__aexit__()
            await conversation.__aexit__()

        assert [each.fileno() for each in sockets] == [-1, -1, -1]
        released.set()
    assert asyncio.all_tasks() - before == set()
    gc.collect()
