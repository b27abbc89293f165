"""A proxy between client and server that notes every request and fails as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Literal, get_args
from urllib.parse import urlsplit

Fault = Literal[
    "503",  # come again at once
    "503 without a time",
    "503 for a second",
    "429",
    "500",  # it cannot do this, today or tomorrow
    "hang up",  # before the server has heard of it
    "cut the request",  # the server hears half of it
    "lose the answer",  # the server has done it
    "cut the answer",  # the client hears half of it
    "delay",
    "drop",  # no answer, and no end of the connection: only the client's patience ends
]
ALL_FAULTS: tuple[Fault, ...] = get_args(Fault)
FAULTS = tuple(fault for fault in ALL_FAULTS if fault not in ("500", "drop"))  # those that pass
REFUSALS = {
    "503": b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n",
    "503 without a time": b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "503 for a second": b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n",
    "429": b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n",
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}
DELAY_SECONDS = 0.3
TRIES = 20  # of a request that a busy database refuses
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """The first line of a request, and what comes after its head."""

    method: str
    path: str
    opens_stream: bool = False  # it asks for a websocket
    body: bytes = field(default=b"", repr=False)

    @property
    def writes(self) -> bool:
        """Whether it changes anything; Prefect reads lists by POST."""
        return self.method != "GET" and self.path.rpartition("/")[2] not in ("filter", "count", "paginate")


Judge = Callable[[Request], Fault | None]


@dataclass
class Proxy:
    """Passes requests on, one at a time per connection, unless `judge` names a fault for one.

    A request for a websocket is judged as any other. Once it is passed on its connection is a stream: bytes are
    copied both ways, until either side or `cut_streams` ends it.
    """

    api_url: str
    judge: Judge = lambda request: None
    seen: list[Request] = field(default_factory=list)
    _streams: dict[str, list[asyncio.StreamWriter]] = field(default_factory=dict)  # path → both ends of each

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.seen if request.writes]

    def streams(self, path: str) -> int:
        """How many streams are open on this path."""
        return len(self._streams.get(path, ())) // 2

    def silence_streams(self, path: str) -> int:
        """Nothing passes any more on the streams of a path, and neither side is told; how many there are."""
        for end in self._streams.get(path, []):
            end.transport.pause_reading()  # type: ignore[attr-defined]
        return self.streams(path)

    def cut_streams(self, path: str) -> int:
        """End the streams of a path on both sides, as a cable that is pulled; how many there were."""
        count = self.streams(path)
        for end in self._streams.pop(path, []):
            end.transport.abort()
        return count

    def close_streams(self) -> None:
        """Cut all that there are: a silent one would never end."""
        for path in list(self._streams):
            self.cut_streams(path)

    async def serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it, or a fault does. A server that is gone closes it, too."""
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        answers = asyncio.create_task(_copy(upstream_reader, writer))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await body_after(head, reader)
                whole, request = head + body, _request(head, body)
                self.seen.append(request)
                fault = self.judge(request)
                if fault is None or fault == "delay":
                    await asyncio.sleep(DELAY_SECONDS if fault else 0)
                    upstream.write(whole)
                    await upstream.drain()
                    if not request.opens_stream:
                        continue
                    with self._stream(request.path, upstream, writer):
                        await _copy(reader, upstream)
                    return
                answers.cancel()
                await asyncio.wait([answers])
                if fault == "drop":
                    await reader.read()
                await _fail(fault, whole, upstream_reader, upstream, writer)
                return
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # one of them hung up
        finally:
            answers.cancel()
            writer.close()
            upstream.close()

    @contextmanager
    def _stream(self, path: str, *ends: asyncio.StreamWriter) -> Iterator[None]:
        """Both ends of a stream can be cut in the block."""
        self._streams.setdefault(path, []).extend(ends)
        try:
            yield
        finally:
            self._streams[path] = [end for end in self._streams.get(path, []) if end not in ends]


async def _fail(
    fault: Fault,
    request: bytes,
    upstream_reader: asyncio.StreamReader,
    upstream: asyncio.StreamWriter,
    writer: asyncio.StreamWriter,
) -> None:
    """What happens to a request that fails; the connection is closed after it."""
    if fault in REFUSALS:
        writer.write(REFUSALS[fault])
        await writer.drain()
    elif fault == "cut the request":
        upstream.write(request[: len(request) // 2])
        await upstream.drain()
    elif fault in ("lose the answer", "cut the answer"):
        answer = await _done(request, upstream_reader, upstream)
        if fault == "cut the answer":
            writer.write(answer[: len(answer) // 2])
            await writer.drain()


async def _done(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The server's answer to a request that it has done: one that its busy database refuses, or that its scheduler gets
    into the way of (409), is sent again."""
    answer = b""
    for _ in range(TRIES):
        writer.write(request)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        answer = head + await body_after(head, reader)
        status = head.split(b" ", 2)[1]
        if not status.startswith(b"5") and status != b"409":
            break
    return answer


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """Connections to a free port are served in the block; yields the address of an API there."""
    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/api"
    finally:
        listener.close()


@asynccontextmanager
async def proxy_to(api_url: str) -> AsyncIterator[Proxy]:
    """A proxy to a server on this machine, for the time of the block."""
    server_port = urlsplit(api_url).port or 0
    async with listening(lambda *streams: proxy.serve(server_port, *streams)) as url:
        proxy = Proxy(api_url=url)
        try:
            yield proxy
        finally:
            proxy.close_streams()


def after_writes(count: int, fault: Fault, *, when: Callable[[Request], bool] = lambda request: True) -> Judge:
    """Let so many writes that match through, then fail every request: the connection is gone for good. A write that a
    busy server has refused, and that comes again, counts once."""
    passed: list[Request] = []

    def judge(request: Request) -> Fault | None:
        if len(passed) >= count:
            return fault
        if request.writes and when(request) and request not in passed:
            passed.append(request)
        return None

    return judge


def always(fault: Fault, *, when: Callable[[Request], bool]) -> Judge:
    """Fail every request that matches."""
    return lambda request: fault if when(request) else None


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


def at_request(number: int, strike: Callable[[], Fault | None], *, when: Callable[[Request], bool]) -> Judge:
    """Do something when a request that matches comes by, before it is passed on: the first is number 1."""
    seen = 0

    def judge(request: Request) -> Fault | None:
        nonlocal seen
        matches = when(request)
        seen += matches
        return strike() if matches and seen == number else None

    return judge


def either(*judges: Judge) -> Judge:
    """The first fault that one of them names."""

    def judge(request: Request) -> Fault | None:
        faults = [each(request) for each in judges]
        return next((fault for fault in faults if fault), None)

    return judge


def at_random(
    random: Random,
    count: int,
    share: float,
    *,
    when: Callable[[Request], bool] = lambda request: True,
    faults: Sequence[Fault] = FAULTS,
) -> Judge:
    """Fail some of the requests that match, each in a way of its own, until so many have failed: then all is well.

    Args:
        random: decides; the same seed fails the same requests in the same way, if they come in the same order.
        count: how many requests fail.
        share: how likely each of them is to, from 0 to 1.
        when: which requests may fail.
        faults: the ways.
    """
    left = count

    def judge(request: Request) -> Fault | None:
        nonlocal left
        if left and when(request) and random.random() < share:
            left -= 1
            return random.choice(faults)
        return None

    return judge


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def body_after(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """What comes after this head, as it came."""
    fields = fields_of(head)
    if "chunked" not in fields.get("transfer-encoding", "").lower():
        return await reader.readexactly(int(fields.get("content-length", "0")))
    body, length = b"", 1
    while length:  # the last chunk is an empty one
        size = await reader.readuntil(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        body += size + await reader.readexactly(length + 2)
    return body


def _request(head: bytes, body: bytes) -> Request:
    method, target, _ = head.decode("latin-1").split(" ", 2)
    opens_stream = "websocket" in fields_of(head).get("upgrade", "").lower()
    return Request(method, urlsplit(target).path, opens_stream, body)


def fields_of(head: bytes) -> dict[str, str]:
    """By their names in small letters."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
