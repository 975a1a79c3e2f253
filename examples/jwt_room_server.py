"""JWT rooms: a signed token says who a client is, which rooms it may enter, and how long.

`POST /token` with `{"user_id": "ana"}` signs a JSON Web Token, returns it, and sets it as
the cookie `session`. It believes every name: a real server asks for a password there. A
program puts the token into the query of `/ws/{room_id}?token=…`. A page need not do that:
its browser sends the cookie, which no script can read and no log shows.

In a room `{"type": "chat", "text": …}` is broadcast, `{"type": "ping"}` is answered, and
anything else gets its sender an error. A token that is missing, wrong or expired, now or
later, closes the connection with 4001; the room `user_ana` is for ana alone (4003).

In the folder examples:

    uvicorn jwt_room_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs. Without SECRET_KEY (32 bytes or more) all
tokens end with the process. A token cannot be taken back, so LIFETIME is short.
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
BACKLOG = 1000  # messages that may wait for one client; all clients share their memory
PAUSE = 0.01  # seconds, before the server looks again whether a client has caught up
CLOSE_TIMEOUT = 2.0  # seconds that the end of a conversation may take
USAGE = 'Expected {"type": "chat", "text": "…"} or {"type": "ping"}'
TOKEN_REFUSED, ROOM_FORBIDDEN = 4001, 4003  # close codes from 4000 on are free to use

# A longer body is answered with 413 before it is parsed.
app = FastAPI(max_body_size=16 * 1024)
# PyJWT checks `exp` only where there is one, hence `require`.
tokens = jwt.PyJWT({"require": ["sub", "exp"]})

UserId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
RoomId = Annotated[str, StringConstraints(max_length=80)]


class Claims(BaseModel):
    sub: UserId  # the subject: whom the token speaks of
    exp: float  # when it expires, in seconds since 1970


class Ping(BaseModel):
    type: Literal["ping"]


class SendChat(BaseModel):
    type: Literal["chat"]
    text: str


Said = Ping | SendChat
parser: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="type")])


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
        """Wait while more than half of the queue is in use."""
        # A speaker hears its own words too. If it falls behind with them, so may others:
        # while this waits, nothing more is read from the speaker, and they can catch up.
        while self.queue.qsize() > BACKLOG // 2 and not self.writer.done():
            await asyncio.sleep(PAUSE)

    async def write(self) -> None:
        """Send what is in the queue, as fast as the client reads."""
        # Sending to a client that has gone raises one of these.
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await self.websocket.send_text(await self.queue.get())

    async def talk(self) -> None:
        """Return when the conversation is over, and end both tasks."""
        try:
            tasks = [self.reader, self.writer]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # If nothing can be sent any more, what the client said before is still read.
            await asyncio.wait([self.reader], timeout=CLOSE_TIMEOUT)
        finally:
            self.reader.cancel()
            self.writer.cancel()

    async def close(self) -> None:
        """Close the connection with the code that says why, if the client has not."""
        with suppress(asyncio.CancelledError):
            await self.writer  # Raises what nobody expected, and uvicorn logs it.
        try:
            await self.reader
        except WebSocketDisconnect:
            return  # The client has gone: there is nobody to tell.
        except WebSocketException as refusal:
            code, reason = refusal.code, refusal.reason
        except asyncio.CancelledError:
            code, reason = status.WS_1013_TRY_AGAIN_LATER, "reads too slowly"
        # A client that does not read makes this wait.
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            await asyncio.wait_for(self.websocket.close(code, reason), CLOSE_TIMEOUT)


def broadcast(room: Iterable[Member], message: str) -> None:
    """Put a message into every member's queue. This never waits for anybody."""
    for member in room:
        try:
            member.queue.put_nowait(message)
        except asyncio.QueueFull:
            member.reader.cancel()  # It reads too slowly: close() says so, with 1013.


def tell(members: Iterable[Member], event: Mapping[str, object]) -> None:
    broadcast(members, json.dumps(event, ensure_ascii=False, separators=(",", ":")))


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; it is empty, and so no JSON, for a binary message."""
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


# The tabs in each room that is not empty. A person with two tabs is in the room once.
rooms: dict[str, set[Member]] = {}


def users(room: set[Member]) -> set[str]:
    return {member.user_id for member in room}


def join(member: Member) -> None:
    first = member.user_id not in users(member.room)
    member.room.add(member)
    size = len(users(member.room))  # whatever the number of their tabs
    joined = {"type": "user_joined", "user_id": member.user_id, "room_size": size}
    # Another tab of somebody who is here already is news to that tab alone.
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
    # A page of any site can make a browser connect, and the browser adds the cookie. It
    # also adds `Origin`, whose page it is, and our own page comes from our own `Host`,
    # which a proxy in front has to pass on. No Origin means no browser, and a token in the
    # query is one that the page itself knows.
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
    # FastAPI's own answer repeats the input, and fails if that holds half a surrogate pair.
    reasons = [reason["msg"] for reason in error.errors()]
    return JSONResponse({"detail": reasons}, status.HTTP_422_UNPROCESSABLE_CONTENT)


@app.post("/token")
async def sign_in(
    request: Request, response: Response, user_id: Annotated[UserId, Body(embed=True)]
) -> dict[str, str]:
    claims = {"sub": user_id, "exp": int(time.time()) + LIFETIME}
    token = tokens.encode(claims, SECRET_KEY, ALGORITHM)
    # No script can read the cookie, and what another site's page asks for goes without it.
    # Without a path it is for what is beside `token`, below any prefix that a proxy adds.
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
    # Accepted first: a browser can read the code of a close, but not that of a refusal.
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
    # Last, because it may take a while to reach this client.
    await member.close()
