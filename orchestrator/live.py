"""What needs the server: plan against it, apply to it, tell how it stands, delete by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from orchestrator.apply import apply_plan
from orchestrator.config import Policy
from orchestrator.desired import Selection
from orchestrator.errors import OrchestratorError
from orchestrator.model import (
    Change,
    CleanupResult,
    DeploymentResult,
    DeploymentStatus,
    Desired,
    EnvironmentStatus,
    LiveDeployment,
    Owner,
    Plan,
)
from orchestrator.pipeline import narrowed
from orchestrator.plan import make_plan
from orchestrator.server import open_server

SCHEDULER_TIME = timedelta(minutes=2)


async def plan_changes(
    desired: Desired,
    policy: Policy,
    *,
    api_url: str | None = None,
    selection: Selection | None = None,
    adopt: Sequence[str] = (),
) -> Plan:
    """Read the server and compare; nothing is written.

    Args:
        desired: what the environment should have.
        policy: the environment's.
        api_url: the server; None: the one that Prefect's settings name.
        selection: what to plan; None: everything.
        adopt: patterns of unowned deployments to take over.

    Raises:
        ServerUnreachable, ServerError: the server did not answer.
    """
    chosen = selection or Selection()
    async with open_server(api_url) as server:
        live = await server.read_deployments()
        return make_plan(
            narrowed(desired, chosen), live, api_url=server.api_url, policy=policy, selection=chosen, adopt=adopt
        )


async def apply_changes(plan: Plan, *, api_url: str | None = None) -> DeploymentResult:
    """Carry out a plan; what fails is in the result, nothing is raised for it."""
    async with open_server(api_url) as server:
        return await apply_plan(plan, server)


async def read_status(desired: Desired, policy: Policy, api_url: str | None) -> EnvironmentStatus:
    """How each deployment of an environment stands on the server."""
    async with open_server(api_url) as server:
        live = await server.read_deployments()
        plan = make_plan(desired, live, api_url=server.api_url, policy=policy)
        pools = {item.config.work_pool for item in live if item.config.work_pool and item.owner == desired.owner}
        workers = {pool: await server.online_workers(pool) for pool in sorted(pools)}
        scheduled = await server.deployments_with_scheduled_runs()
    statuses = tuple(_status(change, workers, scheduled) for change in plan.changes)
    return EnvironmentStatus(environment=desired.owner.environment, api_url=plan.api_url, deployments=statuses)


def _status(change: Change, workers: Mapping[str, frozenset[str]], scheduled: frozenset[str]) -> DeploymentStatus:
    unready = tuple(_why_not_ready(change.live, workers, scheduled)) if change.live else ("not on the server",)
    differences = change.reasons if change.action != "unchanged" and change.live else ()
    return DeploymentStatus(
        deployment=change.deployment,
        in_sync=change.action == "unchanged",
        ready=not unready,
        problems=(*differences, *unready, *change.kept),
    )


def _why_not_ready(
    live: LiveDeployment, workers: Mapping[str, frozenset[str]], scheduled: frozenset[str]
) -> Iterator[str]:
    pool = live.config.work_pool
    if pool and not workers.get(pool):
        yield f"no worker is online in the pool {pool}: start one with `prefect worker start --pool {pool}`"
    waits = any(schedule.active for schedule in live.config.schedules) and not live.config.paused
    if waits and live.id not in scheduled and _is_settled(live):
        yield "its schedule is active, but no run is scheduled: does the server's scheduler run? (its log says)"


def _is_settled(live: LiveDeployment) -> bool:
    """Whether the server's scheduler, which looks once a minute, has had its time since the last change."""
    return datetime.now(UTC) - datetime.fromisoformat(live.changed_at) > SCHEDULER_TIME


async def find_deployments(
    owner: Owner, pattern: str, api_url: str | None
) -> tuple[tuple[LiveDeployment, ...], tuple[str, ...]]:
    """Live deployments by pattern on flow/deployment: ours, and the names of those that are not."""
    async with open_server(api_url) as server:
        live = await server.read_deployments()
    found = [item for item in live if fnmatchcase(item.config.deployment_path, pattern)]
    ours = tuple(item for item in found if item.owner == owner)
    return ours, tuple(item.config.deployment_path for item in found if item.owner != owner)


async def delete_deployments(
    deployments: Sequence[LiveDeployment], foreign: Sequence[str], pattern: str, api_url: str | None
) -> CleanupResult:
    """Delete deployments one by one; a failure does not stop the others."""
    deleted, failed = [], {}
    async with open_server(api_url) as server:
        for item in deployments:
            path = item.config.deployment_path
            try:
                await server.delete_deployment(item.id)
                deleted.append(path)
            except OrchestratorError as error:
                failed[path] = str(error)
    return CleanupResult(pattern=pattern, deleted=tuple(deleted), foreign=tuple(foreign), failed=failed)
