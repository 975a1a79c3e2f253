"""A server that a check directs treats its clients as it is told, and records it."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from exercises.grader.hosting import Host
from exercises.grader.serving import until
from exercises.grader.timeline import Kind, Timeline

PATIENCE = 10.0  # seconds for what comes at once on a machine that has time


@pytest.fixture
async def host():
    async with Host(Timeline()) as host:
        yield host


async def comes(host):
    """Wait for the next client."""
    assert await until(lambda: bool(host.waiting), PATIENCE)
    return host.waiting.popleft()


async def arrive(host, path="/"):
    """A client that is about to connect, and its visit."""
    client = asyncio.create_task(connect(host.url + path, proxy=None).__aenter__())
    return client, await comes(host)


async def test_a_visitor_waits_until_it_is_accepted(host):
    client, visit = await arrive(host, "/ws?a=1&b=&a=2")
    assert (visit.path, visit.query) == ("/ws", {"a": "2", "b": ""})
    assert not client.done()

    await visit.accept()
    await visit.send({"hello": "Ana"})

    assert await (await client).recv() == '{"hello": "Ana"}'
    await (await client).close()


async def test_what_a_visitor_says_is_recorded(host):
    client, visit = await arrive(host)
    await visit.accept()

    await (await client).send("hello")
    await (await client).close()

    kinds = [event.kind for event in host.timeline]
    assert kinds[:2] == [Kind.JOINED, Kind.SENT]
    assert host.timeline.events[1].text == '"hello"'


@pytest.mark.parametrize("status", [401, 403, 503, 522])
async def test_a_visitor_is_refused(host, status):
    client, visit = await arrive(host)

    visit.refuse(status)

    with pytest.raises(InvalidStatus) as refused:
        await client
    assert refused.value.response.status_code == status


async def test_a_visitor_is_closed_with_a_code(host):
    client, visit = await arrive(host)
    await visit.accept()
    connection = await client

    await visit.close(4001, "unknown")

    with pytest.raises(ConnectionClosed) as closed:
        await connection.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "unknown")


async def test_a_line_is_cut_in_the_handshake_and_after_it(host):
    client, visit = await arrive(host)
    visit.cut()
    with pytest.raises((InvalidMessage, OSError, EOFError)):
        await client

    client, visit = await arrive(host)
    await visit.accept()
    connection = await client
    visit.cut()
    with pytest.raises(ConnectionClosed) as closed:
        await connection.recv()
    assert closed.value.rcvd is None


async def test_nobody_gets_in_before_a_host_listens():
    async with Host(Timeline(), listening=False) as host:
        with pytest.raises(OSError, match="Connect call failed|refused"):
            await connect(host.url, proxy=None)

        await host.listen()
        client, visit = await arrive(host)
        visit.refuse(503)
        with pytest.raises(InvalidStatus):
            await client


async def test_a_host_ends_with_visitors_of_every_kind():
    async with Host(Timeline()) as host:
        undecided, _ = await arrive(host)
        client, visit = await arrive(host)
        await visit.accept()
        connection = await client

    with pytest.raises(ConnectionClosed):
        await connection.recv()
    with pytest.raises((InvalidMessage, OSError, EOFError)):
        await undecided
