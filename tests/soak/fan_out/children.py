"""The children of a fan-out: runs that a script takes through their lives by the API, as many as it is let."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

Row = dict[str, Any]
State = dict[str, str]
UNDER_WAY = ("SCHEDULED", "PENDING", "RUNNING")
ENDS: tuple[State, ...] = (
    {"type": "COMPLETED", "name": "Completed"},
    {"type": "COMPLETED", "name": "NoChanges"},
    {"type": "FAILED", "name": "Failed", "message": "no such column"},
    {"type": "FAILED", "name": "TimedOut"},
    {"type": "CANCELLED", "name": "Cancelled"},
)
CRASHED = {"type": "CRASHED", "name": "Crashed", "message": "no heartbeat"}
OPEN: State = {}  # an end that nobody can know
GOOD_ENDS = 4  # how many of the runs end well for each that does not
PAUSE = 0.05


def all_well(items: int) -> dict[int, State]:
    """The ends of runs that a worker runs."""
    return dict.fromkeys(range(items), ENDS[0])


def ends_of(random: Random, items: int) -> dict[int, State]:
    """How each item's run is to end."""
    return {table: random.choice([*(ENDS[:1] * GOOD_ENDS), *ENDS]) for table in range(items)}


@dataclass
class Children:
    """The runs of one deployment; they end one after another, as many as `let` says.

    Args:
        api_url: of the server itself, which may be gone for a while.
        deployment_id: whose runs.
        ends: how the run of each item ends.
    """

    api_url: str
    deployment_id: str
    ends: dict[int, State]
    let: int = 0
    ended: int = 0
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """They end in the block."""
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._work())
            yield
            work.cancel()

    async def have_ended(self, count: int) -> None:
        """Wait until so many have; a parent that does not submit them is noticed elsewhere."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.ended >= count)

    async def end_without_more(self, count: int) -> None:
        """Let so many end, and wait until they have, or all that there are."""
        self.let = count
        async with self._client() as client:
            while self.ended < count and await self._in(client, *UNDER_WAY):  # noqa: ASYNC110
                await asyncio.sleep(PAUSE)

    async def are_running(self, count: int) -> None:
        """Wait until so many run, by the hands of a worker."""
        async with self._client() as client:
            while len(await self._in(client, "RUNNING")) < count:  # noqa: ASYNC110 - they are on the server
                await asyncio.sleep(PAUSE)

    async def leave_running(self) -> int:
        """Runs that outlive the worker that heard their output: they end somehow. How many there are."""
        async with self._client() as client:
            running = await self._in(client, "RUNNING")
        for run in running:
            self.ends[run["parameters"]["table"]] = OPEN
        return len(running)

    async def crash_running(self) -> int:
        """What an automation does that misses the heartbeats of runs, once nothing runs them: how many there were."""
        crashed = set()
        async with self._client() as client:
            while running := await self._in(client, "RUNNING"):
                for run in running:
                    table = run["parameters"]["table"]
                    self.ends[table] = CRASHED
                    await _set_state(client, run, CRASHED)
                    crashed.add(table)
        return len(crashed)

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.api_url, timeout=60)

    @property
    def _may_end(self) -> bool:
        return self.ended < self.let or self.let >= len(self.ends)  # all: doubled ones, too

    async def _work(self) -> None:
        async with self._client() as client:
            while True:
                for run in await self._in(client, *UNDER_WAY) if self._may_end else ():
                    if self._may_end:
                        await self._live(client, run)
                await asyncio.sleep(PAUSE)

    async def _in(self, client: httpx.AsyncClient, *types: str) -> list[Row]:
        """Some of the runs in these states, as soon as the server says."""
        query = {
            "deployments": {"id": {"any_": [self.deployment_id]}},
            "flow_runs": {"state": {"type": {"any_": types}}},
            "sort": "EXPECTED_START_TIME_ASC",
            "limit": 20,
        }
        while True:
            answer = await _post(client, "/flow_runs/filter", **query)
            if answer is not None and answer.is_success:
                rows: list[Row] = answer.json()
                return rows
            await asyncio.sleep(PAUSE)

    async def _live(self, client: httpx.AsyncClient, run: Row) -> None:
        """Start and end one run. What the server did not confirm is seen at the next look: it is under way, or not."""
        for state in ({"type": "RUNNING"}, self.ends[run["parameters"]["table"]]):
            if not await _set_state(client, run, state):
                return
        async with self._moved:
            self.ended += 1
            self._moved.notify_all()


async def _set_state(client: httpx.AsyncClient, run: Row, state: State) -> bool:
    """Whether the server confirms it."""
    answer = await _post(client, f"/flow_runs/{run['id']}/set_state", state=state, force=True)
    return answer is not None and answer.is_success


async def _post(client: httpx.AsyncClient, route: str, **body: Any) -> httpx.Response | None:
    """The answer; None where there is none."""
    try:
        return await client.post(route, json=body)
    except httpx.TransportError:
        return None
