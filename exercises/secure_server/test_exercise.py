"""The checks of the vault: keys that fit, keys that do not, and keys that are no keys."""

from urllib.parse import quote

import pytest


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
    wrong_message="a key that is missing is no error of the server: give the parameter a "
    "default of None, and refuse",
    server_crashed="the exception is in your code; its last line stands above",
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
    closed_early="the header is `Authorization`, and its value the word Bearer and the key",
    unexpected_message="a header without the right key opens nothing",
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


@pytest.mark.task(3, points=3)
@pytest.mark.likely(
    closed_early="a code can be read only after the handshake: accept, and close with 4001",
    wrong_message="the code is 4001, with a reason",
    unexpected_message="nothing is said to a guest without the key: close after accept",
    silence="close right after accept, without waiting for the guest to speak",
)
async def test_a_browser_is_told_why(conversation, word):
    """who comes to the desk without the key is told 4001"""
    for path in [f"/desk?key={word()}", "/desk", "/desk?key="]:
        guest = await conversation.join("guest", path)
        await guest.expect_close(4001, with_reason=True)


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
