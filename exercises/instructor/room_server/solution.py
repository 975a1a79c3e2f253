"""A games club where every table keeps to itself: one possible solution."""

import asyncio
import contextlib
import random
from typing import Annotated, Literal

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

QUEUE_SIZE = 100  # messages that may wait for one tab

app = FastAPI()


# What a player may say.
class Say(BaseModel):
    kind: Literal["say"]
    text: str


class Roll(BaseModel):
    kind: Literal["roll"]
    sides: int = Field(ge=2, le=100)


class Whisper(BaseModel):
    kind: Literal["whisper"]
    to: str
    text: str


# What the server says.
class Seated(BaseModel):
    kind: Literal["seated"] = "seated"
    who: str
    players: list[str]


class Gone(BaseModel):
    kind: Literal["gone"] = "gone"
    who: str


class Said(BaseModel):
    kind: Literal["said"] = "said"
    turn: int
    who: str
    text: str


class Rolled(BaseModel):
    kind: Literal["rolled"] = "rolled"
    turn: int
    who: str
    sides: int
    result: int


class Whispered(BaseModel):
    kind: Literal["whispered"] = "whispered"
    who: str
    text: str


class Error(BaseModel):
    kind: Literal["error"] = "error"
    reason: str


Move = Say | Roll | Whisper
parser: TypeAdapter[Move] = TypeAdapter(Annotated[Move, Field(discriminator="kind")])


def understand(text: str | None) -> Move | Error:
    if text is None:
        return Error(reason="text messages only")
    try:
        return parser.validate_json(text)
    except ValidationError as invalid:
        return Error(reason=invalid.errors(include_input=False)[0]["msg"])


class Tab:
    """A connection of a player, and the messages that wait to be sent on it."""

    def __init__(self, websocket: WebSocket, player: str) -> None:
        self.websocket = websocket
        self.player = player
        self.messages: asyncio.Queue[str] = asyncio.Queue(QUEUE_SIZE)

    async def write(self) -> None:
        # When the line is cut, the endpoint learns of it while receiving.
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await self.websocket.send_text(await self.messages.get())


def tell(tabs: set[Tab], event: BaseModel) -> None:
    """Leave a message for the writers; a tab whose queue is full misses it."""
    message = event.model_dump_json()
    for tab in tabs:
        with contextlib.suppress(asyncio.QueueFull):
            tab.messages.put_nowait(message)


class Table:
    """Who sits at a table, and how many turns it has seen."""

    def __init__(self) -> None:
        self.tabs: set[Tab] = set()
        self.turns = 0

    def tabs_of(self, player: str) -> set[Tab]:
        return {tab for tab in self.tabs if tab.player == player}

    def sit(self, newcomer: Tab) -> None:
        first = not self.tabs_of(newcomer.player)
        self.tabs.add(newcomer)
        players = sorted({tab.player for tab in self.tabs})
        event = Seated(who=newcomer.player, players=players)
        tell(self.tabs if first else {newcomer}, event)

    def turn(self) -> int:
        self.turns += 1
        return self.turns

    def play(self, tab: Tab, move: Move | Error) -> None:
        who = tab.player
        match move:
            case Say(text=text):
                tell(self.tabs, Said(turn=self.turn(), who=who, text=text))
            case Roll(sides=sides):
                result = random.randint(1, sides)
                rolled = Rolled(turn=self.turn(), who=who, sides=sides, result=result)
                tell(self.tabs, rolled)
            case Whisper(to=to, text=text) if listeners := self.tabs_of(to):
                tell(listeners, Whispered(who=who, text=text))
            case Whisper():
                tell({tab}, Error(reason="nobody of that name sits here"))
            case Error():
                tell({tab}, move)

    def go(self, tab: Tab) -> None:
        self.tabs.discard(tab)
        if not self.tabs_of(tab.player):
            tell(self.tabs, Gone(who=tab.player))


tables: dict[str, Table] = {}


@app.websocket("/club/{table}/{player}")
async def club(websocket: WebSocket, table: str, player: str) -> None:
    await websocket.accept()
    tab = Tab(websocket, player)
    writer = asyncio.create_task(tab.write())
    mine = tables.setdefault(table, Table())
    mine.sit(tab)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            mine.play(tab, understand(message.get("text")))
            # Messages that arrive together are read without a pause; the writers need one.
            await asyncio.sleep(0)
    finally:
        writer.cancel()
        mine.go(tab)
        if not mine.tabs:
            del tables[table]
