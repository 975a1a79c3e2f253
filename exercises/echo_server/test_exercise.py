"""The checks of the parrot: one function is one check, its first line says what for."""

import pytest

PATH = "/ws/parrot"


@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    wrong_message="the answer is `Polly: `, one space, and the visitor's own text",
    closed_early="after one answer the handler returned: receive and answer in a loop",
    silence="a message that arrived was not answered: send one answer for each text",
)
async def test_every_text_is_repeated(conversation, word):
    """every text comes back with `Polly: ` before it"""
    ana = await conversation.join("ana", PATH)

    for text in [word(), word(), f"  {word()} ", f"žluťoučký {word()} 🦜"]:
        await ana.send(text)
        await ana.expect(f"Polly: {text}")


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    silence="an empty text counts as false in Python, but it is a message too",
    closed_early="an empty text counts as false in Python: does it end your loop?",
    wrong_message="one visitor's messages and answers concern nobody else",
)
async def test_visitors_are_independent(conversation, word):
    """an empty text comes back too, and only to its visitor"""
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    await ana.send("")
    await ana.expect("Polly: ")
    await ana.leave()

    text = word()
    await ben.send(text)
    await ben.expect(f"Polly: {text}")


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    server_crashed="receive_text() fails on a binary message: look at the whole message "
    "that receive() gives, and close with 1003 if it has no text",
    silence="a binary message must end the connection: close it with code 1003",
    unexpected_message="a binary message is not repeated; close the connection with 1003",
    wrong_message="the close code for data of the wrong kind is 1003 (unsupported data)",
    closed_early="returning is not enough: close with code 1003 first",
)
async def test_a_binary_message_is_closed_with_1003(conversation, word):
    """a binary message is closed with 1003 and a reason"""
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    await ana.send(word().encode())

    await ana.expect_close(1003, with_reason=True)
    text = word()
    await ben.send(text)
    await ben.expect(f"Polly: {text}")


@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    server_crashed="when a visitor has gone, receive_text() and sending raise "
    "WebSocketDisconnect, and receive() returns a message of type `websocket.disconnect`: "
    "end the conversation on either",
    silence="a handler must end when its visitor has gone: receive() returns a message of "
    "type `websocket.disconnect` then",
)
async def test_leaving_is_quiet(conversation, server, word):
    """who leaves, or is cut off, leaves no error in the log"""
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    text = word()
    await ana.send(text)
    await ana.expect(f"Polly: {text}")

    await ana.leave()
    ben.vanish()

    await server.expect_quiet()


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    wrong_message="the answer to `slow T` is `Polly: T`: take the first word off, whole "
    "and once, and only where it comes first",
    unexpected_message="Polly thinks for half a second before she answers `slow …`",
)
async def test_a_slow_text_is_answered(conversation, word):
    """`slow T` is answered `Polly: T` after half a second"""
    ana = await conversation.join("ana", PATH)
    text = f"so {word()}"

    # Neither `replace` nor `lstrip` takes off that one word and nothing else.
    await ana.send(f"slow {text} slow {text}")
    await ana.expect(f"Polly: {text} slow {text}", after=0.45)

    await ana.send(f"{text} slow {text}")
    await ana.expect(f"Polly: {text} slow {text}")


@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    loop_blocked="this call stops the event loop, and with it every visitor; "
    "`await asyncio.sleep(0.5)` waits and lets the others go on",
    unexpected_message="ben was answered only after ana: something held everybody up",
    wrong_message="the answer to `slow T` is `Polly: T`",
)
async def test_nobody_waits_for_a_slow_answer(conversation, word):
    """while Polly thinks for ana, ben is answered"""
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)
    slow, first, second = word(), word(), word()

    await ana.send(f"slow {slow}")
    # The second question follows the first answer, so it cannot share its moment.
    for text in [first, second]:
        await ben.send(text)
        await ben.expect(f"Polly: {text}")
    await ana.expect(f"Polly: {slow}")

    conversation.expect_order((ben, f"Polly: {second}"), (ana, f"Polly: {slow}"))


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    server_crashed="sending to a visitor who left while Polly thought raises: catch it "
    "where you send, also if that is a task of its own",
    wrong_message="the answer to `slow T` is `Polly: T`",
    silence="a visitor who leaves while Polly thinks holds up neither the others nor the "
    "end of the handler",
    loop_blocked="this call stops the event loop, and with it every visitor; "
    "`await asyncio.sleep(0.5)` waits and lets the others go on",
)
async def test_leaving_before_a_slow_answer_is_quiet(conversation, server, word):
    """who leaves while Polly thinks leaves no error in the log"""
    ana = await conversation.join("ana", PATH)
    ben = await conversation.join("ben", PATH)

    await ana.send(f"slow {word()}")
    await ana.leave()

    # When this one is answered, the time to answer ana is over, too.
    text = word()
    await ben.send(f"slow {text}")
    await ben.expect(f"Polly: {text}")
    await ben.leave()
    await server.expect_quiet()
