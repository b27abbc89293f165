"""The proxy of the fault tests: what either side sees of each fault."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.integration.proxy import (
    FAULTS,
    Fault,
    Proxy,
    Request,
    after_writes,
    always,
    at_random,
    first,
    listening,
    proxy_to,
)

BODY, ANSWER = b"x" * 1000, b"y" * 1000
POST = Request("POST", "/api/flows/")


@asynccontextmanager
async def upstream() -> AsyncIterator[tuple[str, list[int]]]:
    """A server that answers every request, and notes how long the bodies of the whole ones were."""
    bodies: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                bodies.append(len(await reader.readexactly(len(BODY) if head.startswith(b"POST") else 0)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with listening(serve) as url:
        yield url, bodies


SEEN: dict[Fault, tuple[object, list[int]]] = {
    "503": (503, []),
    "503 without a time": (503, []),
    "503 for a second": (503, []),
    "429": (429, []),
    "500": (500, []),
    "hang up": (httpx.TransportError, []),
    "cut the request": (httpx.TransportError, []),
    "lose the answer": (httpx.TransportError, [len(BODY)]),
    "cut the answer": (httpx.TransportError, [len(BODY)]),
    "delay": (200, [len(BODY)]),
    "drop": (httpx.TransportError, []),
}


@pytest.mark.parametrize("fault", SEEN)
async def test_a_fault_hits_one_request_and_the_next_is_well(fault: Fault) -> None:
    expected, arrived = SEEN[fault]
    async with upstream() as (url, bodies), proxy_to(url) as proxy, httpx.AsyncClient() as client:
        proxy.judge = first(1, fault)
        if isinstance(expected, int):
            assert (await client.post(proxy.api_url, content=BODY)).status_code == expected
        else:
            with pytest.raises(httpx.TransportError):
                await client.post(proxy.api_url, content=BODY, timeout=0.2 if fault == "drop" else 60)
        assert bodies == arrived

        assert (await client.post(proxy.api_url, content=BODY)).content == ANSWER
        assert bodies == [*arrived, len(BODY)]
        assert [request.method for request in proxy.seen] == ["POST", "POST"]


async def test_a_server_that_is_gone_hangs_up() -> None:
    async with upstream() as (url, _):
        pass
    async with proxy_to(url) as proxy, httpx.AsyncClient() as client:
        with pytest.raises(httpx.TransportError):
            await client.get(proxy.api_url)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n0\r\n\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n\r\n"


@pytest.mark.parametrize("fault", [None, "lose the answer", "cut the answer"])
async def test_answers_in_chunks_are_heard_to_their_end(fault: Fault | None) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in (CHUNKED[:60], CHUNKED[60:]):
            writer.write(part)
            await writer.drain()

    async with listening(answer) as url, proxy_to(url) as proxy:
        proxy.judge = lambda request: fault
        async with httpx.AsyncClient() as client:
            if fault is None:
                assert (await client.get(proxy.api_url)).content == b"0\r\n0123456789abcdef"
                return
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(proxy.api_url)


# --- streams ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy to a websocket that sends back what it hears, and the address of that socket in the proxy."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, close_timeout=0.1) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with proxy_to(f"http://127.0.0.1:{port}/api") as proxy:
            yield proxy, f"ws://127.0.0.1:{urlsplit(proxy.api_url).port}/api/events/out"


async def echoed(connection: ClientConnection, message: str) -> str | bytes:
    await connection.send(message)
    return await connection.recv()


async def test_a_websocket_passes_both_ways() -> None:
    async with echoing() as (proxy, url):
        async with connect(url) as connection:
            assert await echoed(connection, "a\r\n\r\nb" * 10_000) == "a\r\n\r\nb" * 10_000
            assert await echoed(connection, "again") == "again"
            assert proxy.streams("/api/events/out") == 1
        assert [(each.path, each.opens_stream) for each in proxy.seen] == [("/api/events/out", True)]


async def test_open_websockets_can_be_cut_and_opened_again() -> None:
    async with echoing() as (proxy, url):
        async with connect(url) as one, connect(url.replace("out", "in")) as other:
            await echoed(one, "open")
            assert (proxy.cut_streams("/api/events/out"), proxy.streams("/api/events/out")) == (1, 0)
            with pytest.raises(ConnectionClosedError):
                await one.recv()
            assert await echoed(other, "still there") == "still there"
        async with connect(url) as connection:
            assert await echoed(connection, "again") == "again"


async def test_websockets_can_fall_silent() -> None:
    async with echoing() as (proxy, url), connect(url, close_timeout=0.1) as connection:
        await echoed(connection, "heard")
        assert proxy.silence_streams("/api/events/out") == 1
        await connection.send("unheard")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.recv(), 0.2)
        assert proxy.streams("/api/events/out") == 1


async def test_websockets_can_be_refused() -> None:
    async with echoing() as (proxy, url):
        proxy.judge = always("503", when=lambda request: request.opens_stream)
        with pytest.raises(InvalidStatus):
            async with connect(url, process_exception=lambda error: error):
                pass
        assert proxy.streams("/api/events/out") == 0


def test_after_some_writes_everything_fails() -> None:
    judge = after_writes(1, "503")
    assert [judge(POST) for _ in range(3)] == [None, "503", "503"]


def test_random_faults_are_the_same_for_the_same_seed_and_come_to_an_end() -> None:
    one, other = (at_random(Random(7), 5, 0.5) for _ in range(2))
    dealt = [one(POST) for _ in range(200)]
    assert dealt == [other(POST) for _ in range(200)]
    assert sum(fault is not None for fault in dealt) == 5
    assert dealt[-100:] == [None] * 100


def test_random_faults_are_of_all_kinds_and_only_where_they_may() -> None:
    judge = at_random(Random(1), 500, 1.0, when=lambda request: request.writes)
    assert Counter(judge(POST) for _ in range(500)).keys() == set(FAULTS)
    assert at_random(Random(1), 1, 1.0, when=lambda request: request.writes)(Request("GET", "/api/health")) is None
