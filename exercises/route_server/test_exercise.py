"""The checks of the hotel: each path leads to the right desk, and to no other."""

import random
from urllib.parse import quote

import pytest


@pytest.mark.task(1, points=2)
@pytest.mark.likely(
    closed_early="the path is not known, or the handler returned: the route is "
    "`/desk/{name}`, and it receives in a loop",
    silence="the greeting comes on opening, before the guest has said anything",
    wrong_message="the name comes from the path: name the parameter as the route does",
    unexpected_message="one greeting, and one answer for each text",
)
async def test_the_path_names_a_person(conversation, word):
    """a guest is greeted and answered by the person in the path"""
    ana, ben = word(), word()
    first = await conversation.join("first", f"/desk/{ana}")
    second = await conversation.join("second", f"/desk/{ben}")

    await first.expect(f"{ana} is listening")
    await second.expect(f"{ben} is listening")
    for guest, name in [(first, ana), (second, ben), (first, ana)]:
        text = word()
        await guest.send(text)
        await guest.expect(f"{name} writes down: {text}")


@pytest.mark.task(1, points=1)
@pytest.mark.likely(
    server_crashed="when a guest has left, receiving raises WebSocketDisconnect: catch it "
    "around the whole conversation",
    wrong_message="FastAPI has decoded the name already: take it as it comes",
)
async def test_names_may_hold_anything(conversation, server, word):
    """names may hold anything, and leaving leaves no error"""
    name = f"Zoë {word()} 🛎"
    guest = await conversation.join("guest", f"/desk/{quote(name)}")
    await guest.expect(f"{name} is listening")

    await guest.leave()
    other = await conversation.join("other", f"/desk/{word()}")
    other.vanish()

    await server.expect_quiet()


@pytest.mark.task(2, points=2)
@pytest.mark.likely(
    server_crashed="a path parameter is a str unless its annotation says otherwise",
    wrong_message="the floor above is the number plus one",
    closed_early="the route is `/floor/{number}/bell`, and it receives in a loop",
)
async def test_the_bell_rings_one_floor_above(conversation, word):
    """the bell rings one floor above"""
    number = random.Random(word()).randint(10, 90)
    guest = await conversation.join("guest", f"/floor/{number}/bell")

    for text in [word(), word()]:
        await guest.send(text)
        await guest.expect(f"Floor {number + 1} hears: {text}")


@pytest.mark.task(2, points=1)
@pytest.mark.likely(
    unexpected_message="annotate the parameter with `int`: FastAPI refuses what is none",
    server_crashed="convert nothing yourself: annotate the parameter with `int`, and "
    "FastAPI refuses what is none",
    wrong_message="let FastAPI refuse it: annotate the parameter with `int`",
    closed_early="let FastAPI refuse it: annotate the parameter with `int`",
)
async def test_what_is_no_number_is_refused(conversation, server, word):
    """what is no integer is refused"""
    await conversation.expect_refusal("guest", f"/floor/{word()}/bell")
    await conversation.expect_refusal("guest", "/floor/1.5/bell")

    guest = await conversation.join("guest", "/floor/1/bell")
    await guest.leave()


@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    wrong_message="`/desk/{name}` fits it too: the route that is written first gets it",
    closed_early="`/desk/emergency` needs a route of its own",
)
async def test_an_emergency_is_nobodys_name(conversation, word):
    """an emergency is nobody's name"""
    guest = await conversation.join("guest", "/desk/emergency")
    text, name = word(), word()

    await guest.send(text)
    await guest.expect(f"Help is coming: {text}")

    other = await conversation.join("other", f"/desk/{name}")
    await other.expect(f"{name} is listening")


@pytest.mark.task(3, points=2)
@pytest.mark.likely(
    closed_early="the router's prefix stands before its paths, and the app must include it",
    wrong_message="the two paths below `/cellar` answer differently",
)
async def test_the_cellar_has_a_router(conversation, word):
    """everything below /cellar echoes"""
    cellar = await conversation.join("cellar", "/cellar/ws")
    shelf = word()
    deep = await conversation.join("deep", f"/cellar/{shelf}/ws")

    for text in [word(), word()]:
        await cellar.send(text)
        await deep.send(text)
        await cellar.expect(f"The cellar echoes: {text}")
        await deep.expect(f"Shelf {shelf} echoes: {text}")
