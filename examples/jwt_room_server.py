"""JWT rooms: a signed token says who a client is, which rooms it may enter, and how long.

`POST /token` with `{"user_id": "ana"}` signs a JSON Web Token, returns it, and sets it as
the cookie `session`. It believes every name: this is where a password would be checked. A
program then puts the token into the query of `/ws/{room_id}?token=…`. A page needs not:
the browser sends the cookie, which no script can read and no log shows. It does so for
other sites' pages too, and those are refused with HTTP 403: their `Origin` is not our
`Host`, which a proxy in front has to pass on.

In a room `{"type": "chat", "text": …}` is broadcast, `{"type": "ping"}` is answered, and
anything else gets its sender an error. A missing, wrong or expired token is closed with
4001 after accept, so that a browser can read the code, and so is a connection whose token
expires; whoever enters `user_ana` without being `ana` is closed with 4003. A person with
two tabs is in the room once, and leaves it with the last tab.

    uvicorn jwt_room_server:app --reload --timeout-graceful-shutdown 1

Then open http://127.0.0.1:8000 in two tabs. Without SECRET_KEY (32 bytes or more) all
tokens end with the process. A token cannot be taken back, so LIFETIME is short. A client
that reads too slowly is evicted with 1013. The rooms live in this process.
Notebook: notebooks/07_jwt_room_server.ipynb. Exercise: exercises/jwt_room_server.
"""

import asyncio
import os
import secrets
import time
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

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
BACKLOG = 4 * 1024 * 1024  # characters that may wait for one client
CLOSE_TIMEOUT = 2.0  # seconds to reach a client with the close frame
USAGE = 'Expected {"type": "chat", "text": "…"} or {"type": "ping"}'
TOKEN_REFUSED, ROOM_FORBIDDEN = 4001, 4003  # close codes from 4000 on are free to use

app = FastAPI(max_body_size=16 * 1024)
# PyJWT checks `exp` only where there is one, hence `require`. The key is tried at once, so
# that PyJWT's warning of one that is too short (RFC 7518 section 3.2) opens the log.
tokens = jwt.PyJWT({"require": ["sub", "exp"]})
tokens.encode({}, SECRET_KEY, ALGORITHM)

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


class Pong(BaseModel):
    type: Literal["pong"] = "pong"


class Chat(BaseModel):
    type: Literal["chat"] = "chat"
    user_id: str
    text: str


class UserJoined(BaseModel):
    type: Literal["user_joined"] = "user_joined"
    user_id: str
    room_size: int  # users, whatever the number of their tabs


class UserLeft(BaseModel):
    type: Literal["user_left"] = "user_left"
    user_id: str


class Error(BaseModel):
    type: Literal["error"] = "error"
    message: str


Said = Ping | SendChat
parser: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="type")])


# Member and broadcast() are those of chat_server.
class Member:
    """A tab of a user, and the messages that still wait to be sent to it."""

    def __init__(self, websocket: WebSocket, user_id: str) -> None:
        self.websocket = websocket
        self.user_id = user_id
        self.waiting: deque[str] = deque()
        self.behind = 0  # characters in `waiting`
        self.writer: asyncio.Task[None] | None = None
        # A time limit without a deadline: giving it one evicts the member.
        self.stay = asyncio.timeout(None)

    def keep(self, message: str) -> None:
        """Keep a message for the writer, or evict a member who is too far behind."""
        if self.behind <= BACKLOG:
            self.waiting.append(message)
            self.behind += len(message)
        elif self.stay.when() is None:
            self.stay.reschedule(0)

    async def write(
        self, sending: Coroutine[Any, Any, None], future: asyncio.Future[None] | None
    ) -> None:
        """Finish a send that waits for `future`, and then send what has been kept."""
        with suppress(WebSocketDisconnect, RuntimeError):
            if future:  # `None` is a turn of the event loop, which it has had by now
                await asyncio.wait([future])
            await asyncio.create_task(sending)
            while self.waiting:
                message = self.waiting.popleft()
                self.behind -= len(message)
                await self.websocket.send_text(message)
        self.writer = None


def broadcast(members: list[Member], message: str) -> None:
    """Send a message to members, and wait for none of them."""
    event = {"type": "websocket.send", "text": message}  # what send_text() would send
    for member in members:
        if member.writer:
            member.keep(message)
            continue
        sending = member.websocket.send(event)
        try:
            # Sending rarely has to wait: the operating system takes the message at once.
            # So it is begun without a task, as eager tasks of Python 3.12 are.
            future = sending.send(None)
        except StopIteration:
            pass  # The message is sent.
        except (WebSocketDisconnect, RuntimeError):
            pass  # The client has gone. Its endpoint learns of that from receive().
        else:
            member.writer = asyncio.create_task(member.write(sending, future))


# The tabs in each room that is not empty. Nothing below waits while it looks at them, so
# that nobody can come or go in the middle of a message.
Room = list[Member]
rooms: dict[str, Room] = {}


def users(room: Room) -> set[str]:
    return {member.user_id for member in room}


def tell(members: list[Member], event: BaseModel) -> None:
    broadcast(members, event.model_dump_json())


def join(room_id: str, member: Member) -> Room:
    room = rooms.setdefault(room_id, [])
    first = member.user_id not in users(room)
    room.append(member)
    joined = UserJoined(user_id=member.user_id, room_size=len(users(room)))
    # Another tab of somebody who is here already is news to that tab alone.
    tell(room if first else [member], joined)
    return room


def leave(room_id: str, member: Member) -> None:
    room = rooms[room_id]
    room.remove(member)
    if member.writer:
        member.writer.cancel()
    if member.user_id not in users(room):
        tell(room, UserLeft(user_id=member.user_id))
    if not room:
        del rooms[room_id]


async def authenticate(
    websocket: WebSocket,
    token: Annotated[str, Query()] = "",
    session: Annotated[str, Cookie()] = "",
) -> Claims | None:
    """Return what the token says, or None if there is no good one."""
    # A page of any site can make a browser connect, and the browser adds the cookie. It
    # also adds `Origin`, whose page it is, and our own page comes from our own host. No
    # Origin means no browser, and a token in the query is one that the page itself knows.
    origin = websocket.headers.get("origin")
    ours = origin is None or origin.partition("://")[2] == websocket.headers.get("host")
    if session and not token and not ours:
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "foreign origin")
    try:
        claims = tokens.decode(token or session, SECRET_KEY, [ALGORITHM])
        return Claims.model_validate(claims)
    except (jwt.InvalidTokenError, ValidationError):
        return None


def admit(claims: Claims | None, room_id: str) -> Claims:
    """Return the claims if they open the room, or close with a code that says why not."""
    if claims is None:
        raise WebSocketException(TOKEN_REFUSED, "no valid token")
    if room_id.startswith("user_") and room_id != f"user_{claims.sub}":
        raise WebSocketException(ROOM_FORBIDDEN, "the room of somebody else")
    return claims


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close the connection, without waiting for ever on a client that does not read."""
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        await asyncio.wait_for(websocket.close(code, reason), CLOSE_TIMEOUT)


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text; it is empty, and so no JSON, for a binary message."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    return message.get("text") or ""


def answer(room: Room, member: Member, text: str) -> None:
    """Do what a client asks for, or tell it, and nobody else, what is wrong."""
    try:
        said = parser.validate_json(text)
    except ValidationError as invalid:
        broken = invalid.errors(include_input=False)[0]["type"] == "json_invalid"
        tell([member], Error(message="Invalid JSON" if broken else USAGE))
        return
    if isinstance(said, Ping):
        tell([member], Pong())
    else:
        tell(room, Chat(user_id=member.user_id, text=said.text[:TEXT_LIMIT]))


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
    tls = request.url.scheme == "https"
    response.set_cookie(
        "session", token, LIFETIME, httponly=True, samesite="strict", secure=tls
    )
    return {"access_token": token, "token_type": "bearer"}


@app.websocket("/ws/{room_id}")
async def converse(
    websocket: WebSocket,
    room_id: RoomId,
    claims: Annotated[Claims | None, Depends(authenticate)],
) -> None:
    await websocket.accept()
    claims = admit(claims, room_id)
    member = Member(websocket, claims.sub)
    # A second time limit beside the member's own: the connection ends with the token.
    validity = asyncio.timeout(claims.exp - time.time())
    room = join(room_id, member)
    try:
        async with validity, member.stay:
            while True:
                answer(room, member, await receive_text(websocket))
                # A flood of messages is read without a pause; the writers need one.
                await asyncio.sleep(0)
    except (WebSocketDisconnect, TimeoutError):
        pass
    finally:
        leave(room_id, member)
    if validity.expired():
        await close(websocket, TOKEN_REFUSED, "the token has expired")
    elif member.stay.expired():
        await close(websocket, status.WS_1013_TRY_AGAIN_LATER, "reads too slowly")
