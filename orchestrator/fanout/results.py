"""What the flows of runs have returned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import MissingResult, UnfinishedRun

from orchestrator.fanout.calls import Calls, chunks, open_calls
from orchestrator.server import our_errors

AT_ONCE = 50  # full runs at a time


class StateNames(dict[str, str]):
    """State names by run id; called, it reads the runs' return values by run id."""

    def __init__(self, names: Mapping[str, str], read: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        super().__init__(names)
        self._read = read

    async def __call__(self) -> dict[str, Any]:
        """What the flows returned.

        Returns:
            By run id, only for runs that completed and whose flow persists its result (`@flow(persist_result=True)`).
        """
        return await self._read()


async def read_values(run_ids: Sequence[str]) -> dict[str, Any]:
    """The return values of those of the runs that completed and persisted one."""
    values: dict[str, Any] = {}
    async with open_calls() as calls:
        for part in chunks(run_ids, AT_ONCE):
            runs = {str(run.id): run for run in await calls.patiently(partial(_read, calls, part))}
            for run_id in part:
                if run_id in runs:
                    values |= await _value(runs[run_id])
    return values


async def _read(calls: Calls, run_ids: Sequence[str]) -> list[FlowRun]:
    """As Prefect's own objects, which know how to read a result."""
    ids = FlowRunFilterId(any_=[UUID(run_id) for run_id in run_ids])
    with our_errors(calls.api_url):
        return await calls.server.client.read_flow_runs(flow_run_filter=FlowRunFilter(id=ids))


async def _value(run: FlowRun) -> dict[str, Any]:
    if run.state is None or not run.state.is_completed():
        return {}
    try:
        return {str(run.id): await run.state.aresult()}
    except (MissingResult, UnfinishedRun):
        return {}
