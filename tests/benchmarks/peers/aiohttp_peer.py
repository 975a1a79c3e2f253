"""Echo and chat with aiohttp."""

import asyncio

from aiohttp import WSMsgType, web

try:
    from uvloop import run
except ImportError:
    from asyncio import run

members: set[web.WebSocketResponse] = set()


async def echo(request: web.Request) -> web.WebSocketResponse:
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for message in connection:
        if message.type is WSMsgType.TEXT:
            await connection.send_str(f"Echo: {message.data}")
    return connection


async def chat(request: web.Request) -> web.WebSocketResponse:
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    members.add(connection)
    try:
        async for message in connection:
            if message.type is WSMsgType.TEXT:
                for member in members:
                    await member.send_str(f"Client says: {message.data}")
    finally:
        members.remove(connection)
    return connection


async def main() -> None:
    app = web.Application()
    app.add_routes([web.get("/ws/echo", echo), web.get("/ws/chat", chat)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    print(f"startup complete, http://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


run(main())
