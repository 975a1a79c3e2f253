"""What holds for every page: below a path prefix too, and with any name that is typed."""

import re
from pathlib import Path

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse

from exercises.grader.redis_beside import RedisBeside
from exercises.grader.serving import load
from exercises.grader.serving_here import serve_here

EXAMPLES = Path(__file__).parent.parent / "examples"
STEMS = sorted(script.stem for script in EXAMPLES.glob("*_server.py"))
PREFIX = "/user/ana/proxy/8000"  # as jupyter-server-proxy has it


class Proxy:
    """Shows an app below a prefix, and nothing at any other path.

    `told` says that the app knows the prefix, as with `uvicorn --root-path`. Otherwise it
    gets its paths as if there were no proxy.
    """

    def __init__(self, app, *, told=False):
        self.app, self.told = app, told
        self.handshakes = []  # their paths, decoded, as the app knows them

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if not scope["path"].startswith(f"{PREFIX}/"):
            return await refuse(scope, receive, send)
        path = scope["path"].removeprefix(PREFIX)
        if scope["type"] == "websocket":
            self.handshakes.append(path)
        raw = scope["raw_path"].removeprefix(PREFIX.encode())
        changes = {"root_path": PREFIX} if self.told else {"path": path, "raw_path": raw}
        return await self.app(scope | changes, receive, send)


async def refuse(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"nothing here"})


@pytest.fixture(params=STEMS)
def stem(request):
    return request.param


@pytest.fixture
def redis(stem, monkeypatch):
    if stem != "redis_chat_server":
        yield None
        return
    redis = RedisBeside()
    monkeypatch.setenv("REDIS_URL", redis.url)
    yield redis
    redis.end()


@pytest.fixture
def told():
    return False


@pytest.fixture
def example(stem, told, redis, tmp_path, monkeypatch):
    """The example behind a proxy, with a folder of its own for whatever it keeps."""
    monkeypatch.chdir(tmp_path)
    example = load(EXAMPLES / f"{stem}.py")
    if hasattr(example, "INTERVAL"):
        example.INTERVAL = 0.01
    if hasattr(example, "TENTH"):
        example.TENTH = 1
    example.app = Proxy(example.app, told=told)
    return example


@pytest.fixture
async def tab(server, browser):
    """The page, behind the proxy."""
    return await browser.open(f"{server.http_url}{PREFIX}/")


# A conversation with each page


async def is_connected(tab):
    await tab.get_by_text("connected", exact=True).wait_for()


async def press(tab, button):
    await tab.get_by_role("button", name=button, exact=True).click()


async def connect(tab):
    await press(tab, "Connect")
    await is_connected(tab)


async def say(tab, text, label="Message"):
    await tab.get_by_label(label, exact=True).fill(text)
    await tab.keyboard.press("Enter")


async def shows(tab, text, **options):
    await tab.get_by_text(text, **options).first.wait_for()


async def echo(tab):
    await is_connected(tab)
    await say(tab, "hello")
    await shows(tab, "Echo: hello")


async def route(tab):
    for path, answer in [
        ("/ws", "Message received: hello"),
        ("/ws/ana", "Client ana sent: hello"),
        ("/channels/7/ws", "Channel 7 received: hello"),
        ("/chat/ws", "You sent: hello"),
    ]:
        await is_connected(tab)
        await press(tab, "Disconnect")
        await press(tab, path)
        await shows(tab, f"open: {path}")
        await say(tab, "hello")
        await shows(tab, answer)


async def chat(tab):
    for room, answer in [
        ("/ws/chat", "Client says: hello"),
        ("/ws/chat_additional", "(Additional) Client says: hello"),
    ]:
        await is_connected(tab)
        await press(tab, "Disconnect")
        await tab.get_by_label("Room").select_option(room)
        await connect(tab)
        await say(tab, "hello")
        await shows(tab, answer, exact=True)


async def named(tab):
    await connect(tab)
    await say(tab, "hello")
    await shows(tab, "You: hello")


async def room(tab):
    await connect(tab)
    await say(tab, "hello")
    await shows(tab, '"type":"message","user":')


async def secure(tab):
    for path, answer in [
        ("/ws/secure", "You said: hello"),
        ("/ws/notify", "Notification received: hello"),
    ]:
        await tab.get_by_label("Path").select_option(path)
        await say(tab, "secret-token", label="Token")
        await is_connected(tab)
        await say(tab, "hello")
        await shows(tab, answer)
        await press(tab, "Disconnect")
        await shows(tab, "closed with code 1000")


async def jwt(tab):
    await say(tab, "ana", label="User")
    await shows(tab, "signed in as ana")
    for by in ["cookie", "query"]:
        await tab.get_by_label("Token from").select_option(by)
        await connect(tab)
        await say(tab, f"by {by}")
        await shows(tab, f'"user_id": "ana", "text": "by {by}"')
        await press(tab, "Disconnect")


async def stream(tab):
    await shows(tab, "Streaming message 10")


async def progress(tab):
    await shows(tab, "Progress update: 100% complete")


async def price(tab):
    await shows(tab, '"prices":')


async def notification(tab):
    await is_connected(tab)
    await say(tab, "for ana")
    await shows(tab, "HTTP 201")
    await shows(tab, '{"id":1,"message":"for ana"')
    await tab.get_by_label("Message", exact=True).fill("for all")
    await press(tab, "Notify everybody")
    await shows(tab, '{"id":2,"message":"for all"')


async def order(tab):
    await is_connected(tab)
    await press(tab, "Change the status")
    await shows(tab, "HTTP 200")
    await shows(tab, '"type":"order_update","order_id":1')


async def heartbeat(tab):
    await is_connected(tab)
    await say(tab, "ping")
    await shows(tab, "pong", exact=True)


async def resume(tab):
    await is_connected(tab)
    await say(tab, "hello", label="Event")
    await shows(tab, '1: "hello"')
    await press(tab, "Disconnect")
    await press(tab, "Connect")
    await is_connected(tab)
    await say(tab, "again", label="Event")
    await shows(tab, '2: "again"')


async def redis_chat(tab):
    await is_connected(tab)
    await say(tab, "hello")
    await tab.get_by_text("hello", exact=True).nth(1).wait_for()


async def drawing(tab):
    await is_connected(tab)
    await tab.locator("#sketch").click()
    await tab.wait_for_function(
        "board.getImageData(0, 0, 1000, 600).data.some((byte) => byte > 0)"
    )


TALKS = {
    "echo_server": echo,
    "route_server": route,
    "chat_server": chat,
    "named_chat_server": named,
    "room_server": room,
    "secure_server": secure,
    "jwt_room_server": jwt,
    "stream_server": stream,
    "progress_server": progress,
    "price_server": price,
    "notification_server": notification,
    "order_server": order,
    "heartbeat_server": heartbeat,
    "resume_server": resume,
    "redis_chat_server": redis_chat,
    "drawing_server": drawing,
}


@pytest.mark.parametrize("told", [False, True], ids=["stripped", "root_path"])
async def test_a_page_below_a_prefix_connects_and_talks(tab, stem):
    await TALKS[stem](tab)


# Names

# The fields of each page that become one part of an address.
NAMES = {
    "named_chat_server": ["Your name"],
    "room_server": ["Room", "Your name"],
    "jwt_room_server": ["Room"],
    "notification_server": ["User"],
    "order_server": ["Room"],
    "redis_chat_server": ["Room"],
    "drawing_server": ["Board"],
}
# What they may not hold, and what the page says then.
IMPOSSIBLE = {
    "a/b": "may not contain a slash",
    "/": "may not contain a slash",
    "": "is empty",
    ".": "may not be . or ..",
    "..": "may not be . or ..",
}
POSSIBLE = ["a?b", "a#b", "50%", "%2F", "%2e%2e", "...", "a b ", "a\\b", ";&=+", "é 🙂"]

names = pytest.mark.parametrize(
    ("stem", "label"), [(stem, label) for stem in NAMES for label in NAMES[stem]]
)


async def leave(tab, stem):
    """Be ready to connect: some pages connect by themselves, one wants a user first."""
    if stem == "jwt_room_server":
        await say(tab, "ana", label="User")
        await shows(tab, "signed in as ana")
    if not await tab.get_by_text("not connected", exact=True).is_visible():
        await is_connected(tab)
        await press(tab, "Disconnect")
        await shows(tab, "closed with code 1000")


@names
async def test_a_page_says_what_a_name_may_not_be(tab, stem, label, example):
    await leave(tab, stem)
    example.app.handshakes.clear()
    field = tab.get_by_label(label, exact=True)

    for name, why in IMPOSSIBLE.items():
        await say(tab, name, label)
        await tab.get_by_role("alert").get_by_text(f"{label} {why}").wait_for()
        assert await field.input_value() == name
        assert await field.evaluate("(field) => field === document.activeElement")

    await field.fill("a b")
    await press(tab, "Connect")
    await tab.wait_for_function("websocket?.readyState === WebSocket.OPEN")
    assert await tab.get_by_role("alert").inner_text() == ""
    (path,) = example.app.handshakes
    assert "a b" in path.split("/")


@names
async def test_every_other_name_reaches_the_server_as_it_was_typed(
    tab, stem, label, example
):
    await leave(tab, stem)

    for name in POSSIBLE:
        example.app.handshakes.clear()
        await say(tab, name, label)
        await tab.wait_for_function("websocket?.readyState === WebSocket.OPEN")
        (path,) = example.app.handshakes
        assert name in path.split("/")
        await tab.evaluate("websocket.close()")
        await tab.get_by_text("not connected", exact=True).wait_for()


@names
async def test_a_name_is_no_longer_than_the_server_takes(tab, stem, label, example):
    await leave(tab, stem)
    field = tab.get_by_label(label, exact=True)

    await field.fill("")
    await tab.keyboard.insert_text("x" * 100)
    await tab.keyboard.press("Enter")

    await tab.wait_for_function("websocket?.readyState === WebSocket.OPEN")
    longest = 64 if label in ("User", "Your name") else 80
    assert "x" * longest in example.app.handshakes[-1].split("/")


@pytest.mark.parametrize("stem", ["notification_server"])
async def test_what_was_to_be_told_to_an_impossible_name_is_kept(tab, example):
    await is_connected(tab)
    await say(tab, "a/b", label="Recipient")
    await tab.get_by_label("Message", exact=True).fill("hello")
    await tab.keyboard.press("Enter")

    await shows(tab, "Recipient may not contain a slash")
    message = tab.get_by_label("Message", exact=True)
    assert await message.input_value() == "hello"
    await say(tab, "ana", label="Recipient")
    await shows(tab, '{"id":1,"message":"hello"')


@pytest.mark.parametrize("stem", ["route_server"])
async def test_a_path_that_a_browser_would_change_is_not_asked_for(tab, stem, example):
    await leave(tab, stem)
    example.app.handshakes.clear()

    for path in ["/ws/..", "/ws/./ana", "..", "/ws/a#b", "/ws/..?x"]:
        await say(tab, path, label="Path")
        await shows(tab, f"{'/' * (path[0] != '/')}{path} may not contain /./, /../ or #")
        assert await tab.get_by_label("Path").input_value() == path

    await say(tab, "/ws/ana", label="Path")
    await shows(tab, "open: /ws/ana")
    assert example.app.handshakes == ["/ws/ana"]


# What a page says of an end


@pytest.mark.parametrize("stem", ["echo_server"])
@pytest.mark.parametrize("code", [1009, 1012, 1013, 4001])
async def test_a_page_says_what_a_close_code_means(stem, code, browser):
    app = FastAPI()

    @app.get("/")
    async def page():
        return FileResponse(EXAMPLES / f"{stem}.html")

    @app.websocket("/ws/echo")
    async def close(websocket: WebSocket):
        await websocket.accept()
        await websocket.close(code)

    async with serve_here(app) as server:
        tab = await browser.open(server.http_url)
        said = await tab.get_by_text(f"closed with code {code}").inner_text()
        await tab.close()

    meaning = re.search(
        rf'{code}: "(.*?)"', (EXAMPLES / f"{stem}.html").read_text(encoding="utf-8")
    )[1]
    assert said == f"closed with code {code} {meaning}"
