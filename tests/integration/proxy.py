"""A proxy between client and server that notes every request and fails as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["503", "hang up", "lose the answer"]
REFUSAL = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """The first line of a request."""

    method: str
    path: str

    @property
    def writes(self) -> bool:
        """Whether it changes anything; Prefect reads lists by POST."""
        return self.method != "GET" and self.path.rpartition("/")[2] not in ("filter", "count", "paginate")


Judge = Callable[[Request], Fault | None]


@dataclass
class Proxy:
    """Passes requests on, one at a time per connection, unless `judge` names a fault for one."""

    api_url: str
    judge: Judge = lambda request: None
    seen: list[Request] = field(default_factory=list)

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.seen if request.writes]

    async def serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it, or a fault does."""
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", port)
        answers = asyncio.create_task(_copy(upstream_reader, writer))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                method, target, _ = head.decode().split(" ", 2)
                request = Request(method, urlsplit(target).path)
                self.seen.append(request)
                fault = self.judge(request)
                if fault == "503":
                    writer.write(REFUSAL)
                    await writer.drain()
                if fault in ("503", "hang up"):
                    return
                if fault == "lose the answer":
                    answers.cancel()
                    await asyncio.wait([answers])
                upstream.write(head + body)
                await upstream.drain()
                if fault == "lose the answer":
                    await upstream_reader.readuntil(b"\r\n\r\n")  # by then the server has done it
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # one of them hung up
        finally:
            answers.cancel()
            writer.close()
            upstream.close()


@asynccontextmanager
async def proxy_to(api_url: str) -> AsyncIterator[Proxy]:
    """A proxy to a server on this machine, for the time of the block."""
    server_port = urlsplit(api_url).port or 0
    listener = await asyncio.start_server(lambda *streams: proxy.serve(server_port, *streams), "127.0.0.1", 0)
    proxy = Proxy(api_url=f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/api")
    try:
        yield proxy
    finally:
        listener.close()


def after_writes(count: int, fault: Fault) -> Judge:
    """Let so many writes through, then fail every request: the connection is gone for good."""
    left = count

    def judge(request: Request) -> Fault | None:
        nonlocal left
        if left > 0:
            left -= request.writes
            return None
        return fault

    return judge


def first(count: int, fault: Fault, *, when: Callable[[Request], bool] = lambda request: True) -> Judge:
    """Fail the first requests that match, then let everything through."""
    left = count

    def judge(request: Request) -> Fault | None:
        nonlocal left
        if left and when(request):
            left -= 1
            return fault
        return None

    return judge


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def _length(head: bytes) -> int:
    for line in head.decode("latin-1").lower().split("\r\n"):
        name, _, value = line.partition(":")
        if name == "content-length":
            return int(value)
    return 0
