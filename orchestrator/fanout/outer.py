"""The flow runs that a run is part of.

A flow that calls another one gives it a flow run of its own, without a deployment, in the same process; in its next
attempt it gives it a new one. What stays is the call: a task run that stands for it, by whose name and number Prefect
itself knows it again. Source: `create_flow_run` of prefect.flow_engine, `create_run` of prefect.tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from orchestrator.fanout.calls import Calls
from orchestrator.fanout.parent import Parent

Row = Mapping[str, Any]


async def with_outer_runs(calls: Calls, parent: Parent) -> Parent:
    """The same run, as part of the runs that have called it: its children carry their tags, and are found again in
    their next attempts. A flow that a task calls has a random number in each: there its children are new ones.

    Args:
        calls: to the server.
        parent: the run that submits.

    Raises:
        ServerError: the server does not answer, or refuses.
    """
    path = ""
    while parent.called_by is not None:
        call: Row | None = await calls.find("GET", f"/task_runs/{parent.called_by}")
        outer: Row | None = await calls.find("GET", f"/flow_runs/{call['flow_run_id']}") if call else None
        if call is None or outer is None:  # somebody has deleted it
            break
        path = f"/{call['name']}{path}"  # ends in its number
        parent = _part_of(outer, parent, path)
    return parent


def _part_of(outer: Row, parent: Parent, path: str) -> Parent:
    has_begun_before = outer["run_count"] > 1 or bool(outer["empirical_policy"].get("pause_keys"))
    is_called = outer["parent_task_run_id"] and not outer["deployment_id"]
    return replace(
        parent,
        deployment_id=UUID(outer["deployment_id"]) if outer["deployment_id"] else None,
        called_by=UUID(outer["parent_task_run_id"]) if is_called else None,
        address=f"{outer['id']}{path}",
        is_repeated=parent.is_repeated or has_begun_before,
        outer=(*parent.outer, outer["id"]),
    )
