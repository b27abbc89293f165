"""Stands between an engine or a registry and who talks to it, passes bytes on, and hangs up when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def _at_once(said: bytes) -> None:
    """Holds nothing back."""


@dataclass
class Forwarder:
    """Passes on what both sides say. A connection on which `hangs_up` is true of some bytes ends before they pass;
    others pass when `holds` has ended for them."""

    connect: Connect
    hangs_up: Callable[[bytes], bool] = lambda said: False
    holds: Callable[[bytes], Awaitable[None]] = _at_once
    hung_up: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. It ends with whichever side ends first."""
        there_reader, there_writer = await self.connect()
        tasks = {
            asyncio.create_task(self._copy(reader, there_writer)),
            asyncio.create_task(self._copy(there_reader, writer)),
        }
        self._tasks |= tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for end in (writer, there_writer):
            with suppress(OSError):
                end.close()

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while said := await source.read(1 << 16):
                if self.hangs_up(said):
                    self.hung_up += 1
                    return
                await self.holds(said)
                target.write(said)
                await target.drain()


@asynccontextmanager
async def forward_socket(path: Path, forwarder: Forwarder) -> AsyncIterator[str]:
    """A unix socket that forwards; gives what DOCKER_HOST is to be."""
    async with await asyncio.start_unix_server(forwarder.serve, path):
        yield f"unix://{path}"


@asynccontextmanager
async def forward_port(forwarder: Forwarder) -> AsyncIterator[str]:
    """A loopback port that forwards; gives host:port."""
    async with await asyncio.start_server(forwarder.serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
