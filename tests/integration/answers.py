"""A proxy that lets a server's answers be changed, or be made up: for answers that are wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

from .proxy import TRIES, body_after, fields_of, listening

OURS = ("host", "connection", "content-length", "accept-encoding")  # of a request's headers: not passed on


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request, and how to have the server answer it."""

    path: str
    body: Any
    say: Callable[[Any], Awaitable[Answer]]  # with another body

    async def pass_on(self) -> Answer:
        return await self.say(self.body)

    @property
    def is_bulk(self) -> bool:
        return self.path.endswith("/create_flow_run/bulk")

    @property
    def sets_states(self) -> bool:
        return self.path.endswith("/flow_runs/bulk_set_state")


@dataclass(frozen=True)
class Answer:
    """A status and JSON."""

    status: int
    body: Any = None


Teller = Callable[[Asked], Awaitable[Answer]]


async def truth(asked: Asked) -> Answer:
    return await asked.pass_on()


@dataclass
class Liar:
    """Answers each request as `tell` says."""

    tell: Teller = truth
    seen: list[Asked] = field(default_factory=list)

    async def serve(
        self, client: httpx.AsyncClient, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                asked = await _read(client, reader)
                self.seen.append(asked)
                answer = await self.tell(asked)
                writer.write(_written(answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def lied_to(api_url: str) -> AsyncIterator[Liar]:
    """What Prefect's clients ask in the block goes through such a proxy to a server. It passes no websockets on."""
    liar, origin = Liar(), api_url.removesuffix("/api")
    async with (
        httpx.AsyncClient(base_url=origin, timeout=60) as client,
        listening(lambda *streams: liar.serve(client, *streams)) as url,
    ):
        with temporary_settings({PREFECT_API_URL: url}):
            yield liar


async def _read(client: httpx.AsyncClient, reader: asyncio.StreamReader) -> Asked:
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, _ = head.decode("latin-1").split(" ", 2)
    kept = {name: value for name, value in fields_of(head).items() if name not in OURS}
    content = await body_after(head, reader)

    async def say(body: Any) -> Answer:
        for _ in range(TRIES):
            answer = await client.request(method, target, json=body, headers=kept)
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:  # SQLite is locked by the server's own services
                break
        return Answer(answer.status_code, answer.json() if answer.content else None)

    return Asked(path=urlsplit(target).path, body=json.loads(content) if content else None, say=say)


def _written(answer: Answer) -> bytes:
    content = b"" if answer.body is None else json.dumps(answer.body).encode()
    head = f"HTTP/1.1 {answer.status} Said\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content
