"""Runs that no worker takes: tests make them, read them, end them, wait, and see what is asked of the server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar, cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, temporary_settings

from orchestrator.submission import FlowSubmission

from .api import unique
from .conftest import PrefectServer
from .proxy import Judge, Proxy, always, proxy_to

PAUSE = 0.05  # seconds between two looks
LIMIT_SECONDS = 120  # far more than it takes: it only keeps a broken test from hanging
SCHEMA = {"type": "object", "properties": {"table": {"type": "integer"}}}
T = TypeVar("T")


async def new_deployment() -> str:
    """The path of a deployment of its own, which no worker serves."""
    flow_name = unique("fan-out")
    async with get_client() as client:
        flow_id = await client.create_flow_from_name(flow_name)
        await client.create_deployment(
            flow_id, name="idle", parameter_openapi_schema=SCHEMA, enforce_parameter_schema=True
        )
    return f"{flow_name}/idle"


async def end(run_id: str, state: State, *, force: bool = True) -> None:
    """Set a run's state, mostly one that is an end."""
    async with get_client() as client:
        await client.set_flow_run_state(UUID(run_id), state, force=force)


async def read(run_id: str) -> FlowRun:
    async with get_client() as client:
        return await client.read_flow_run(UUID(run_id))


async def state_of(run_id: str) -> str:
    return (await read(run_id)).state_name or ""


# --- waiting ---------------------------------------------------------------------------------------------


async def until(condition: Callable[[], Awaitable[T] | T], *, pause: float = PAUSE) -> T:
    """What the condition gives, once that is true."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (found := await _outcome(condition)):  # noqa: ASYNC110 - nobody tells what lies on a server
            await asyncio.sleep(pause)
    return found


async def _outcome(condition: Callable[[], Awaitable[T] | T]) -> T:
    found = condition()
    return await found if inspect.isawaitable(found) else cast(T, found)


async def until_in(run_id: str, *names: str) -> None:
    async def has_come() -> bool:
        return await state_of(run_id) in names

    await until(has_come)


def is_live(etl: FlowSubmission) -> bool:
    """Whether it hears the server's events: no poll is needed to tell it of what happens from now on."""
    return etl._watch.is_live


# --- the server through a proxy --------------------------------------------------------------------------


@asynccontextmanager
async def proxied(server: PrefectServer, judge: Judge = lambda request: None) -> AsyncIterator[Proxy]:
    """What is asked in the block goes through a proxy, which notes it. Inside of a flow, since the flow itself sends
    events by a websocket."""
    async with proxy_to(server.api_url) as proxy:
        proxy.judge = judge
        with temporary_settings({PREFECT_API_URL: proxy.api_url}):
            yield proxy


def through_proxy(server: PrefectServer) -> AbstractAsyncContextManager[Proxy]:
    """The same through a proxy that has no event stream."""
    return proxied(server, always("hang up", when=lambda request: request.path.endswith("/events/out")))
