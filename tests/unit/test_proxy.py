"""The proxy of the fault tests: what either side sees of each fault."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import httpx
import pytest

from tests.integration.proxy import FAULTS, Fault, Request, after_writes, at_random, first, proxy_to

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

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api", bodies
    finally:
        server.close()


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
                await client.post(proxy.api_url, content=BODY)
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
