"""Plan → results: carry out one plan, one change at a time, and say what became of each.

Changes are written by the gentlest call: creates by POST, updates without schedules, schedules one by one. One
failure does not stop the others, whatever it is; a server that goes away does, and what was not tried is reported as
skipped.
The order is the plan's: the deployer's own deployment comes last. Writers are one at a time: SQLite answers
concurrent writes with "database is locked", and a plan holds only what differs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from orchestrator.errors import OrchestratorError, ServerUnreachable
from orchestrator.masking import without_secrets
from orchestrator.model import (
    Change,
    ChangeResult,
    DeploymentConfig,
    DeploymentResult,
    LiveDeployment,
    Plan,
    ResultStatus,
    ScheduleConfig,
)
from orchestrator.plan import COMPARED_FIELDS, SchedulePair, pair_schedules

logger = logging.getLogger(__name__)


class DeploymentWriter(Protocol):
    """What apply needs of a server; `server.PrefectServer` is one."""

    async def create_deployment(self, config: DeploymentConfig, labels: Mapping[str, str]) -> str: ...
    async def update_deployment(self, id_: str, config: DeploymentConfig, fields: tuple[str, ...]) -> None: ...
    async def pause_deployment(self, id_: str) -> None: ...
    async def delete_deployment(self, id_: str) -> None: ...
    async def create_schedule(self, deployment_id: str, schedule: ScheduleConfig) -> None: ...
    async def update_schedule(self, deployment_id: str, schedule_id: str, schedule: ScheduleConfig) -> None: ...
    async def delete_schedule(self, deployment_id: str, schedule_id: str) -> None: ...


async def apply_plan(plan: Plan, server: DeploymentWriter) -> DeploymentResult:
    """Carry out a plan.

    Returns:
        One result per change, in the plan's order. Nothing is raised for a change that fails: its result says why.
    """
    results: list[ChangeResult] = []
    gone = False
    for change in plan.changes:
        if gone and change.writes:
            results.append(_result(change, "skipped", "not tried: the server did not answer any more"))
            continue
        try:
            results.append(await _carry_out(change, plan, server))
        except (OrchestratorError, TypeError, ValueError, LookupError) as error:
            gone = isinstance(error, ServerUnreachable)
            told = str(error) if isinstance(error, OrchestratorError) else f"{type(error).__name__}: {error}"
            reason = without_secrets(told, change.desired) if change.desired else told
            logger.error("%s %s failed: %s", change.action, change.deployment, reason)
            results.append(_result(change, "failed", reason))
    return DeploymentResult(
        environment=plan.environment, api_url=plan.api_url, results=tuple(results), problems=plan.problems
    )


async def _carry_out(change: Change, plan: Plan, server: DeploymentWriter) -> ChangeResult:
    if change.action == "conflict":
        return _result(change, "skipped", "; ".join(change.reasons))
    if change.action == "unchanged":
        return _result(change, "unchanged")
    if change.action == "create" and change.desired is not None:
        await server.create_deployment(change.desired, _labels(change.desired, plan))
    elif change.action == "delete" and change.live is not None:
        await server.delete_deployment(change.live.id)
    elif change.desired is not None and change.live is not None:
        await _update(change, change.desired, change.live, server)
    logger.info("%s %s", change.action, change.deployment)
    return _result(change, "applied")


async def _update(change: Change, desired: DeploymentConfig, live: LiveDeployment, server: DeploymentWriter) -> None:
    names = {diff.path.partition(".")[0] for diff in change.fields}
    fields = tuple(name for name in COMPARED_FIELDS if name in names)
    if fields:
        await server.update_deployment(live.id, desired, fields)
    if "paused" in names:
        await server.pause_deployment(live.id)
    if any(name.startswith("schedules[") for name in names):
        await _update_schedules(desired, live, server)


async def _update_schedules(desired: DeploymentConfig, live: LiveDeployment, server: DeploymentWriter) -> None:
    """Create, change and delete single schedules: the ones that are right keep their ids and their runs."""
    for pair in pair_schedules(desired.schedules, live):
        if pair.desired is None and pair.live_id is not None:
            await server.delete_schedule(live.id, pair.live_id)
        elif pair.desired is not None and pair.live_id is None:
            await server.create_schedule(live.id, pair.desired)
        elif pair.desired is not None and pair.live_id is not None and pair.differs:
            await server.update_schedule(live.id, pair.live_id, _in_rhythm(pair.desired, pair))


def _in_rhythm(desired: ScheduleConfig, pair: SchedulePair) -> ScheduleConfig:
    """An interval without an anchor of its own keeps the one it has: the server would let it start anew, from now."""
    if desired.interval is None or desired.anchor_date is not None or pair.live is None:
        return desired
    return replace(desired, anchor_date=pair.live.anchor_date)


def _labels(config: DeploymentConfig, plan: Plan) -> dict[str, str]:
    """Where a deployment comes from. Labels pass down to its runs, but can be set at creation only."""
    return {
        "orchestrator.project": plan.owner.project,
        "orchestrator.environment": plan.environment,
        "orchestrator.source": config.source,
    }


def _result(change: Change, status: ResultStatus, error: str | None = None) -> ChangeResult:
    return ChangeResult(deployment=change.deployment, action=change.action, status=status, error=error)
