"""The checks of the vault: keys that fit, keys that do not, and keys that are no keys."""

import asyncio
from urllib.parse import quote

import pytest

from exercises.grader.clients import Conversation
from exercises.grader.serving import ServerFailed


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    closed_early="the right key is the value of the environment variable TOKEN, and the "
    "handler goes on receiving until the guest leaves",
    silence="the guest hears `The vault is open` before it has said anything",
    server_crashed="the exception is in your code; its last line stands above",
)
async def test_the_right_key_opens_the_vault(conversation, secrets, word):
    """the right key opens the vault"""
    guest = await conversation.join("guest", f"/vault?key={secrets['TOKEN']}")

    await guest.expect("The vault is open")
    for text in [word(), word()]:
        await guest.send(text)
        await guest.expect(f"Kept: {text}")


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    unexpected_message="to be refused, a handshake must not be accepted first: raise "
    "before accept()",
    wrong_message="the handler failed or returned without an answer: a default for a "
    "missing key, and `raise WebSocketException(1008)` to refuse",
    closed_early="the right key is the value of the environment variable TOKEN, whatever "
    "that is: only others are refused",
    silence="a guest with the right key hears `The vault is open` before it has said "
    "anything; another handshake is refused at once",
    server_crashed="a key that is missing is no error of the server: give the parameter a "
    "default, and refuse",
)
async def test_any_other_key_is_refused(conversation, secrets, word):
    """a wrong key, an empty one, or none is refused"""
    guest = await conversation.join("guest", f"/vault?key={secrets['TOKEN']}")
    await guest.expect("The vault is open")

    for key in [
        word(),
        "",
        secrets["TOKEN"][:-1],
        secrets["TOKEN"] + "0",
        "None",
        "secret",
    ]:
        await conversation.expect_refusal("thief", f"/vault?key={key}")
    await conversation.expect_refusal("thief", "/vault")


@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    closed_early="the header is `Authorization`, and its value the word Bearer and the "
    "key; a query parameter without a default refuses whoever has none, before your code "
    "runs",
    silence="the header opens the vault as the query does, greeting and answers included",
    wrong_message="a header without the right key, or without any, is refused with HTTP "
    "403 and makes nothing fail",
    unexpected_message="a header without the right key opens nothing",
    server_crashed="the header may be missing, or lack its second word: look before you "
    "take it apart",
)
async def test_the_header_opens_the_vault(conversation, secrets, word):
    """the key in the header opens the vault as well"""
    key = secrets["TOKEN"]
    guest = await conversation.join("guest", "/vault", headers=bearer(key))
    text = word()

    await guest.expect("The vault is open")
    await guest.send(text)
    await guest.expect(f"Kept: {text}")

    for wrong in [bearer(word()), bearer(""), {"Authorization": "Bearer"}]:
        await conversation.expect_refusal("thief", "/vault", headers=wrong)
    other = {"Authorization": f"Basic {key}"}
    await conversation.expect_refusal("thief", "/vault", headers=other)


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    wrong_message="hmac.compare_digest raises for text beyond ASCII: compare bytes",
    server_crashed="hmac.compare_digest raises for text beyond ASCII: compare bytes",
    unexpected_message="this is not the key",
)
async def test_no_key_makes_the_server_fail(conversation, server, secrets, word):
    """no key makes the server fail"""
    guest = await conversation.join("guest", f"/vault?key={secrets['TOKEN']}")
    await guest.expect("The vault is open")
    await guest.leave()

    for key in ["clé", "\x00", "🗝" * 50, "k" * 5000, f"{word()}é"]:
        await conversation.expect_refusal("thief", f"/vault?key={quote(key)}")

    await server.expect_quiet()


@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    closed_early="a code can be read only after the handshake: accept, and close with 4001",
    wrong_message="the code is 4001, with a reason",
    unexpected_message="nothing is said to a guest without the key: close after accept",
    silence="close right after accept, without waiting for the guest to speak",
    server_crashed="after `close()` nothing can be sent or received: let the endpoint end "
    "there",
)
async def test_a_browser_is_told_why(conversation, server, word):
    """who comes to the desk without the key is told 4001"""
    for path in [f"/desk?key={word()}", "/desk", "/desk?key="]:
        guest = await conversation.join("guest", path)
        await guest.expect_close(4001, with_reason=True)

    await server.expect_quiet()


@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    closed_early="at the desk, the right key works as it does at the vault",
    silence="at the desk, the right key works as it does at the vault",
)
async def test_the_right_key_works_at_the_desk(conversation, server, secrets, word):
    """the right key works at the desk"""
    guest = await conversation.join("guest", f"/desk?key={secrets['TOKEN']}")
    text = word()

    await guest.expect("The vault is open")
    await guest.send(text)
    await guest.expect(f"Kept: {text}")
    await guest.leave()

    await server.expect_quiet()


@pytest.mark.server(environment={"TOKEN": ""})
@pytest.mark.task(3, points=1)
@pytest.mark.likely(
    unexpected_message="an empty key is equal to an empty TOKEN: look whether there is a "
    "key at all before you compare",
    closed_early="let everybody in at the desk, and close with 4001 after accept",
    wrong_message="the desk closes with 4001 and a reason, and the vault refuses with HTTP "
    "403, whatever TOKEN is",
    silence="an empty key is equal to an empty TOKEN: look whether there is a key at all "
    "before you compare",
)
async def test_an_empty_token_opens_nothing(cast, timeline, word):
    """where TOKEN is empty, no key is right"""
    [server] = cast.servers
    try:
        await asyncio.to_thread(server.wait_ready)
    except ServerFailed:
        return  # A server that does not even start lets nobody in.

    async with Conversation(server.url, timeline) as conversation:
        for key in ["?key=", "", f"?key={word()}"]:
            guest = await conversation.join("guest", f"/desk{key}")
            await guest.expect_close(4001, with_reason=True)
            await conversation.expect_refusal("thief", f"/vault{key}")
        for header in [bearer(""), {"Authorization": "Bearer"}]:
            await conversation.expect_refusal("thief", "/vault", headers=header)
