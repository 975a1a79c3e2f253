"""Keeps every table for ever, as a defaultdict does.

fails: test_an_empty_table_is_forgotten
outcome: wrong message
advice: delete the table when its last player has gone
"""

import random
from typing import Annotated, Literal

from fastapi import FastAPI, WebSocket
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

app = FastAPI()


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


Move = Annotated[Say | Roll | Whisper, Field(discriminator="kind")]
parser: TypeAdapter[Say | Roll | Whisper] = TypeAdapter(Move)


class Table:
    def __init__(self) -> None:
        self.tabs: list[tuple[str, WebSocket]] = []
        self.turns = 0

    def players(self) -> list[str]:
        return sorted({player for player, _ in self.tabs})

    async def tell(self, event: dict[str, object], to: str | None = None) -> None:
        for player, tab in list(self.tabs):
            if to in (None, player):
                await tab.send_json(event)


tables: dict[str, Table] = {}


async def play(
    table: Table, websocket: WebSocket, who: str, move: Say | Roll | Whisper
) -> None:
    if isinstance(move, Whisper):
        if move.to in table.players():
            event = {"kind": "whispered", "who": who, "text": move.text}
            await table.tell(event, to=move.to)
        else:
            await websocket.send_json({"kind": "error", "reason": "nobody of that name"})
        return
    table.turns += 1
    event = {"kind": "said", "turn": table.turns, "who": who}
    if isinstance(move, Say):
        await table.tell(event | {"text": move.text})
    else:
        throw = {"sides": move.sides, "result": random.randint(1, move.sides)}
        await table.tell(event | throw | {"kind": "rolled"})


@app.websocket("/club/{name}/{player}")
async def club(websocket: WebSocket, name: str, player: str) -> None:
    await websocket.accept()
    table = tables.setdefault(name, Table())
    new = player not in table.players()
    table.tabs.append((player, websocket))
    event = {"kind": "seated", "who": player, "players": table.players()}
    if new:
        await table.tell(event)
    else:
        await websocket.send_json(event)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            try:
                move = parser.validate_json(message.get("text") or b"")
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                await websocket.send_json({"kind": "error", "reason": reason})
            else:
                await play(table, websocket, player, move)
    finally:
        table.tabs.remove((player, websocket))
        if player not in table.players():
            await table.tell({"kind": "gone", "who": player})
