"""JWT rooms: a signed token says who a client is, which rooms it may enter, and how long.

`POST /token` with `{"user_id": "ana"}` signs a JSON Web Token, returns it, and sets it as
the cookie `session`. It believes every name: a real server asks for a password there. A
program puts the token into the query of `/ws/{room_id}?token=…`. A page need not do that:
its browser sends the cookie, which no script can read and no log shows.

In a room `{"type": "chat", "text": …}` is broadcast, `{"type": "ping"}` is answered, and
for anything else its sender gets an error. A connection is closed with 4001 if its token
is missing or wrong, and when its token expires. The room `user_ana` is for ana alone: for
anybody else it is closed with 4003.

In the folder examples:

    uvicorn jwt_room_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs. The key comes from the environment variable
SECRET_KEY (32 bytes or more); without it, no token outlives the process. A token cannot be
taken back, so LIFETIME is short.
Notebook: notebooks/07_jwt_room_server.ipynb. Exercise: exercises/jwt_room_server.
"""

import asyncio
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import jwt
from fastapi import (
    Body,
    Cookie,
    Depends,
    FastAPI,
    Query,
    Request,
    Response,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

PAGE = Path(__file__).with_suffix(".html")
SECRET_KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)
ALGORITHM = "HS256"  # ours, never the one that a token names
LIFETIME = 15 * 60  # seconds from the signature of a token to its expiry
TEXT_LIMIT = 500  # characters of a chat text that others get to see
LONGEST = 64 * 1024  # characters of one message of a client
BACKLOG = 1000  # messages that may wait for one client; all queues hold the same texts
PAUSE = 0.01  # seconds, before the server checks again whether a client has caught up
CLOSE_TIMEOUT = 2.0  # seconds for each of the two waits at the end of a conversation
USAGE = 'Expected {"type": "chat", "text": "…"} or {"type": "ping"}'
TOKEN_REFUSED, ROOM_FORBIDDEN = 4001, 4003  # close codes from 4000 on are free to use

# A longer body is answered with 413 before it is parsed.
app = FastAPI(max_body_size=16 * 1024)
# PyJWT checks `exp` only where there is one, hence `require`.
tokens = jwt.PyJWT({"require": ["sub", "exp"]})

UserId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
RoomId = Annotated[str, StringConstraints(max_length=80)]


class Claims(BaseModel):
    sub: UserId  # the subject: who the client is
    exp: float  # the expiry, in seconds since 1970


class Ping(BaseModel):
    type: Literal["ping"]


class SendChat(BaseModel):
    type: Literal["chat"]
    text: str


Said = Annotated[Ping | SendChat, Field(discriminator="type")]
parser: TypeAdapter[Said] = TypeAdapter(Said)


# Member is the one of chat_server: only __init__ and read() differ.
class Member:
    """A tab of a user: two tasks, and a queue of messages for the client."""

    def __init__(self, websocket: WebSocket, room: set["Member"], claims: Claims) -> None:
        self.websocket, self.room = websocket, room
        self.user_id, self.expiry = claims.sub, claims.exp
        self.queue: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        self.reader = asyncio.create_task(self.read())
        self.writer = asyncio.create_task(self.write())

    async def read(self) -> None:
        """Answer what the client says, until it leaves or its token expires."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.expiry - time.time()):
                while True:
                    text = await receive_text(self.websocket)
                    # The time limit stops while the machine sleeps. time.time() does not.
                    if time.time() >= self.expiry:
                        break
                    answer(self, text)
                    await self.catch_up()
        raise WebSocketException(TOKEN_REFUSED, "the token has expired")

    async def catch_up(self) -> None:
        """Read nothing more from the client while more than half of its queue is in use."""
        # A speaker hears its own words, too. If they wait in its queue, it speaks faster
        # than they can be sent. While it has to wait, all can catch up, and the other half
        # of each queue is for what others say.
        while self.queue.qsize() > BACKLOG // 2 and not self.writer.done():
            await asyncio.sleep(PAUSE)

    async def write(self) -> None:
        """Send what is in the queue, as fast as the client reads."""
        # Sending to a client that has gone raises one of these; which one depends on who
        # noticed it first.
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await self.websocket.send_text(await self.queue.get())

    async def talk(self) -> None:
        """Wait until the conversation is over, then end both tasks."""
        try:
            tasks = [self.reader, self.writer]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # If the writer ended first, the client has gone. What it said before that is
            # still read.
            await asyncio.wait([self.reader], timeout=CLOSE_TIMEOUT)
        finally:
            self.reader.cancel()
            self.writer.cancel()

    async def close(self) -> None:
        """Close the connection with the code that says why, unless the client has gone."""
        await asyncio.wait([self.reader, self.writer])
        # result() raises what has ended a task. uvicorn logs what is not expected here.
        if not self.writer.cancelled():
            self.writer.result()
        try:
            self.reader.result()
        except WebSocketDisconnect:
            return
        except WebSocketException as refusal:
            code, reason = refusal.code, refusal.reason
        except asyncio.CancelledError:  # by broadcast(), unless the client has gone
            code, reason = status.WS_1013_TRY_AGAIN_LATER, "reads too slowly"
        # Closing waits for a client that does not read, so it has a limit.
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            await asyncio.wait_for(self.websocket.close(code, reason), CLOSE_TIMEOUT)


def broadcast(room: Iterable[Member], message: str) -> None:
    """Put a message into every member's queue. Nothing waits, so nobody comes or goes."""
    for member in room:
        try:
            member.queue.put_nowait(message)
        except asyncio.QueueFull:
            # The client reads too slowly: its own endpoint closes, with 1013.
            member.reader.cancel()


def tell(members: Iterable[Member], event: Mapping[str, object]) -> None:
    broadcast(members, json.dumps(event, ensure_ascii=False))


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text. A binary message counts as an empty one, which is no JSON."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str = message.get("text") or ""
    if len(text) > LONGEST:
        raise WebSocketException(status.WS_1009_MESSAGE_TOO_BIG, "the text is too long")
    return text


def answer(member: Member, text: str) -> None:
    """Do what a client asks for, or tell it, and nobody else, what is wrong."""
    try:
        said = parser.validate_json(text)
    except ValidationError as invalid:
        broken = invalid.errors(include_input=False)[0]["type"] == "json_invalid"
        tell([member], {"type": "error", "message": "Invalid JSON" if broken else USAGE})
        return
    if isinstance(said, Ping):
        tell([member], {"type": "pong"})
    else:
        chat = {"type": "chat", "user_id": member.user_id, "text": said.text[:TEXT_LIMIT]}
        tell(member.room, chat)


# The tabs in each room that is not empty.
rooms: dict[str, set[Member]] = {}


def users(room: set[Member]) -> set[str]:
    """The users in a room, each once, however many tabs they have open."""
    return {member.user_id for member in room}


def join(member: Member) -> None:
    first = member.user_id not in users(member.room)
    member.room.add(member)
    size = len(users(member.room))
    joined = {"type": "user_joined", "user_id": member.user_id, "room_size": size}
    # If a user opens a second tab, only that tab is told.
    tell(member.room if first else [member], joined)


def leave(member: Member, room_id: str) -> None:
    member.room.remove(member)
    if member.user_id not in users(member.room):
        tell(member.room, {"type": "user_left", "user_id": member.user_id})
    if not member.room:
        del rooms[room_id]


async def authenticate(
    websocket: WebSocket,
    token: Annotated[str, Query()] = "",
    session: Annotated[str, Cookie()] = "",
) -> Claims | None:
    """Return what the token says, or None if there is no good one."""
    # A page of any site can make a browser connect, and the browser adds our cookie. It
    # also adds `Origin`, which says where the page comes from. Our own page comes from
    # `Host` (a proxy has to pass it on). A program that is no browser sends no `Origin`.
    # And a page that puts a token into the query knows that token already.
    origin = websocket.headers.get("origin")
    ours = origin is None or origin.partition("://")[2] == websocket.headers.get("host")
    if session and not token and not ours:
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "foreign origin")
    try:
        claims = tokens.decode(token or session, SECRET_KEY, [ALGORITHM])
        return Claims.model_validate(claims)
    except (jwt.InvalidTokenError, ValidationError):
        return None


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.exception_handler(RequestValidationError)
async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
    # FastAPI's own answer repeats the input, which cannot be sent if it holds NaN.
    reasons = [reason["msg"] for reason in error.errors()]
    return JSONResponse({"detail": reasons}, status.HTTP_422_UNPROCESSABLE_CONTENT)


@app.post("/token")
async def sign_in(
    request: Request, response: Response, user_id: Annotated[UserId, Body(embed=True)]
) -> dict[str, str]:
    claims = {"sub": user_id, "exp": int(time.time()) + LIFETIME}
    token = tokens.encode(claims, SECRET_KEY, ALGORITHM)
    # httponly: no script can read it. samesite: no page of another site makes the browser
    # send it. No path: it is for what is beside `token`, below any prefix of a proxy.
    tls = request.url.scheme == "https"
    response.set_cookie(
        "session", token, LIFETIME, path=None, httponly=True, samesite="strict", secure=tls
    )
    return {"access_token": token, "token_type": "bearer"}


@app.websocket("/ws/{room_id}")
async def converse(
    websocket: WebSocket,
    room_id: RoomId,
    claims: Annotated[Claims | None, Depends(authenticate)],
) -> None:
    # Accept first: a browser can read the code of a close, but not that of a refusal.
    await websocket.accept()
    if claims is None:
        raise WebSocketException(TOKEN_REFUSED, "no valid token")
    if room_id.startswith("user_") and room_id != f"user_{claims.sub}":
        raise WebSocketException(ROOM_FORBIDDEN, "the room of somebody else")
    member = Member(websocket, rooms.setdefault(room_id, set()), claims)
    join(member)
    try:
        await member.talk()
    finally:
        leave(member, room_id)
    # Last, because it may take a while, and the others do not have to wait for it.
    await member.close()
