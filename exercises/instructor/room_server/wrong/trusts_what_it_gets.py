"""Takes every message for JSON with the right keys, as most tutorials do.

fails: test_what_makes_no_sense_is_answered
outcome: server crashed
advice: catch what the parsing raises inside the loop
"""

import random
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


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


async def play(table: Table, websocket: WebSocket, who: str, move: dict[str, Any]) -> None:
    if move["kind"] == "whisper":
        if move["to"] in table.players():
            event = {"kind": "whispered", "who": who, "text": move["text"]}
            await table.tell(event, to=move["to"])
        else:
            await websocket.send_json({"kind": "error", "reason": "nobody of that name"})
        return
    table.turns += 1
    event = {"kind": "said", "turn": table.turns, "who": who}
    if move["kind"] == "say":
        await table.tell(event | {"text": move["text"]})
    else:
        throw = {"sides": move["sides"], "result": random.randint(1, move["sides"])}
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
            move = await websocket.receive_json()
            await play(table, websocket, player, move)
    except WebSocketDisconnect:
        pass
    finally:
        table.tabs.remove((player, websocket))
        if player not in table.players():
            await table.tell({"kind": "gone", "who": player})
        if not table.tabs:
            del tables[name]
