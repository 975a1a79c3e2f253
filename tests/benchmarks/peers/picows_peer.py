"""Echo and chat with picows, which has no coroutine for a connection, but callbacks."""

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest
from picows import ws_create_server as create_server

try:
    from uvloop import run
except ImportError:
    from asyncio import run

members: set[WSTransport] = set()


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            answer = b"Echo: " + frame.get_payload_as_bytes()
            transport.send(WSMsgType.TEXT, answer)


class Chat(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        members.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        members.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            message = b"Client says: " + frame.get_payload_as_bytes()
            for member in members:
                member.send(WSMsgType.TEXT, message)


def listener(request: WSUpgradeRequest) -> WSListener:
    return Echo() if request.path == b"/ws/echo" else Chat()


async def main() -> None:
    server = await create_server(listener, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"startup complete, http://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


run(main())
