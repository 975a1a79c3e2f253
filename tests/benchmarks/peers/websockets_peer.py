"""Echo and chat with the server and the `broadcast()` of the library websockets."""

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast, serve

try:
    from uvloop import run
except ImportError:
    from asyncio import run

members: set[ServerConnection] = set()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(f"Echo: {message}")


async def chat(connection: ServerConnection) -> None:
    members.add(connection)
    try:
        async for message in connection:
            broadcast(members, f"Client says: {message}")
    finally:
        members.remove(connection)


async def answer(connection: ServerConnection) -> None:
    request = connection.request
    await (echo if request and request.path == "/ws/echo" else chat)(connection)


async def main() -> None:
    async with serve(answer, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"startup complete, http://127.0.0.1:{port}", flush=True)
        await asyncio.Event().wait()


run(main())
