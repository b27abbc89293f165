"""After an apply: is everything as it should be, and will it run?

What was written is read back, in pages, and compared. Then each deployment with an active schedule has to have its
first runs: a scheduler that is off, or fails in every round, says so nowhere but in the server's log.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from orchestrator.differences import differences
from orchestrator.errors import OrchestratorError, ServerError
from orchestrator.model import Change, DeploymentResult, Finding, LiveDeployment, Plan, ResourceChange
from orchestrator.pools import read_resources
from orchestrator.resources import plan_resources, resources_in
from orchestrator.server import PrefectServer

SCHEDULER_TIME = timedelta(minutes=2)
PATIENCE_SECONDS = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 1.0  # seconds between two looks for scheduled runs
WORKERLESS = (":push", ":managed")  # endings of pool types that need no worker

NOT_SCHEDULED = Finding(
    message="its schedule is active, but no run is scheduled",
    remedy="does the server's scheduler run (its log says), and has the rule a date in the coming 100 days?",
)
SWITCHED_OFF = Finding(
    message="its schedule is active, but no run is scheduled: the server says that its scheduler is off",
    remedy="start the server with PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED=true, or the services beside it",
)
ASKED_FOR = Finding(
    message="its schedule is active, but the server's scheduler has made no run of it",
    remedy="does it run? (the server's log says) The next run was made by asking for it, and will be the only one",
)
NO_DATES = Finding(
    message="its schedule is active, but has no date in the coming 100 days, for which the server schedules",
    remedy="look at its rule if that is not meant",
    severity="warning",
)

ReadLive = Callable[[Collection[str]], Awaitable[Sequence[LiveDeployment]]]
"""Reads at least the deployments of the flows with these names."""


async def verify(
    plan: Plan,
    result: DeploymentResult,
    server: PrefectServer,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    read: ReadLive | None = None,
) -> Mapping[str, tuple[Finding, ...]]:
    """Read back what an apply wrote.

    Args:
        plan: what was to be done.
        result: what became of it; only what was applied is looked at.
        server: where it was done.
        patience_seconds: how long a scheduler has for the first runs, where the server does not say that it has one.
        read: gives deployments of the server as they are now; None: without their automations.

    Returns:
        Findings by deployment, and by what the results and `pool_findings` call pools, queues and limits; empty where
        all is well. A server that does not answer is a finding too.
    """
    applied = {item.deployment for item in result.results if item.status == "applied"}
    changes = [change for change in plan.changes if change.deployment in applied]
    findings: dict[str, list[Finding]] = defaultdict(list)
    try:
        for place, finding in await _unlike_resources(plan, result, server):
            findings[place].append(finding)
        if not changes:
            return _told(findings)
        flows = {change.deployment.partition("/")[0] for change in changes}
        live = {item.config.deployment_path: item for item in await (read or server.read_deployments)(flows)}
        for change in changes:
            findings[change.deployment] += _as_written(change, live.get(change.deployment))
        there = [live[change.deployment] for change in changes if change.desired and change.deployment in live]
        for place, finding in (await pool_findings(there, server)).items():
            findings[place].append(finding)
        for path, finding in await _unscheduled(there, server, patience_seconds):
            findings[path].append(finding)
    except OrchestratorError as error:
        remedy = "What was written stays; `orchestrator status` looks again."
        findings[plan.owner.tag].append(Finding(message=f"It could not be read back: {error}", remedy=remedy))
    return _told(findings)


def _told(findings: Mapping[str, Sequence[Finding]]) -> dict[str, tuple[Finding, ...]]:
    return {place: tuple(found) for place, found in findings.items() if found}


def why_not_ready(
    live: LiveDeployment, pools: Mapping[str, Finding], scheduled: frozenset[str], *, now: datetime | None = None
) -> Iterator[Finding]:
    """What keeps a deployment from running, at any time.

    Args:
        live: the deployment.
        pools: what is wrong with which pool or queue, as `pool_findings` has it.
        scheduled: ids of the deployments that have runs waiting.
        now: the time; None: the present.
    """
    for place in (f"work pool {live.config.work_pool}", _queue_place(live)):
        if place in pools:
            yield pools[place]
    settled = (now or datetime.now(UTC)) - datetime.fromisoformat(live.changed_at) > SCHEDULER_TIME
    if waits_for_runs(live) and live.id not in scheduled and settled:
        yield NOT_SCHEDULED


def waits_for_runs(live: LiveDeployment) -> bool:
    """Whether the server's scheduler is to make runs of it."""
    return any(schedule.active for schedule in live.config.schedules) and not live.config.paused


async def pool_findings(deployments: Sequence[LiveDeployment], server: PrefectServer) -> dict[str, Finding]:
    """What is wrong with the pools and queues of deployments.

    Returns:
        By `work pool NAME`: it is missing, paused, or without a worker; by `work queue POOL/NAME`: it is paused. One
        request per 200 pools and per 200 queues of these names.
    """
    names = sorted({item.config.work_pool for item in deployments if item.config.work_pool})
    rows = await _named("work_pools", names, server)
    by_name = {row["name"]: row for row in rows}
    found = {f"work pool {name}": _pool_finding(name, by_name.get(name)) for name in names}
    used = {_queue_place(item) for item in deployments} - {""}
    queues = sorted({item.config.work_queue for item in deployments if item.config.work_queue})
    for row in await _named("work_queues", queues, server):
        place = f"work queue {row['work_pool_name']}/{row['name']}"
        if place in used and row["is_paused"]:
            found[place] = _paused_queue(row["work_pool_name"], row["name"])
    return {place: finding for place, finding in found.items() if finding is not None}


async def _named(kind: str, names: Sequence[str], server: PrefectServer) -> Sequence[Mapping[str, Any]]:
    return await server.pages(f"/{kind}/filter", {kind: {"name": {"any_": [*names]}}}) if names else ()


def _queue_place(live: LiveDeployment) -> str:
    pool, queue = live.config.work_pool, live.config.work_queue
    return f"work queue {pool}/{queue}" if pool and queue else ""


def _paused_queue(pool: str, queue: str) -> Finding:
    remedy = f"resume it with `prefect work-queue resume {queue} --pool {pool}` when its runs may start"
    return Finding(message=f"the work queue {queue} of the pool {pool} is paused", remedy=remedy, severity="warning")


def _pool_finding(name: str, row: Mapping[str, object] | None) -> Finding | None:
    if row is None:
        message, remedy = f"there is no work pool {name}", "`orchestrator bootstrap` creates those of the environment"
        return Finding(message=message, remedy=remedy)
    if row["is_paused"]:
        remedy = f"resume it with `prefect work-pool resume {name}` when its runs may start"
        return Finding(message=f"the work pool {name} is paused", remedy=remedy, severity="warning")
    if row.get("status") == "READY" or str(row["type"]).endswith(WORKERLESS):
        return None
    message = f"no worker is online in the pool {name}"
    return Finding(message=message, remedy=f"start one with `prefect worker start --pool {name}`", severity="warning")


def _as_written(change: Change, live: LiveDeployment | None) -> Iterator[Finding]:
    """Whether one change shows on the server."""
    if change.desired is None:
        if live is not None and change.live is not None and live.id == change.live.id:
            yield Finding(message="it was deleted, but is still there", remedy="Apply again.")
    elif live is None:
        yield Finding(message="it was written, but is not there", remedy="Somebody deleted it: plan again.")
    else:
        paths = ", ".join(diff.path for diff in differences(change.desired, live)[0])
        if paths:
            remedy = "Somebody changed it meanwhile, or the server does not keep it: plan again."
            yield Finding(message=f"it was written, but reads back differently: {paths}", remedy=remedy)


async def _unlike_resources(plan: Plan, result: DeploymentResult, server: PrefectServer) -> list[tuple[str, Finding]]:
    """The pools, queues and limits that were written and do not read back so."""
    written = {item.label for item in result.resources if item.status == "applied"}
    wanted = resources_in(plan.resources)  # all of them: queues are read with their pools
    now = plan_resources(wanted, await read_resources(server, wanted)) if written else ()
    return [(change.label, _unlike(change)) for change in now if change.writes and change.label in written]


def _unlike(change: ResourceChange) -> Finding:
    if change.action == "create":
        return Finding(message="it was written, but is not there", remedy="Somebody deleted it: plan again.")
    paths = ", ".join(diff.path for diff in change.fields)
    remedy = "Somebody changed it meanwhile, or the server does not keep it: plan again."
    return Finding(message=f"it was written, but reads back differently: {paths}", remedy=remedy)


async def _unscheduled(
    there: Sequence[LiveDeployment], server: PrefectServer, patience: float
) -> list[tuple[str, Finding]]:
    """The deployments that have got no runs although an active schedule asks for them.

    Where the server says that it has a scheduler, that one is not waited for: it inserts runs by the same code as the
    server does when it is asked to. Each gets its first run by that, and the scheduler adds the others.
    """
    missing = {item.id: item.config.deployment_path for item in there if waits_for_runs(item)}
    missing = await _without_runs(missing, server)
    has_scheduler = await server.has_scheduler() if missing else None
    if not has_scheduler:  # it may be elsewhere
        missing = await _waited_for(missing, server, patience)
    if has_scheduler is False:
        return [(path, SWITCHED_OFF) for path in missing.values()]
    began = datetime.now(UTC)  # a run that is due every few seconds may be gone before all are asked for
    refused = {id_ for id_ in missing if not await _gets_a_run(id_, server)}
    dateless = await _without_runs(missing, server, since=began)
    found = []
    for id_, path in missing.items():
        if id_ in dateless:
            found.append((path, NOT_SCHEDULED if id_ in refused else NO_DATES))
        elif has_scheduler is None:
            found.append((path, ASKED_FOR))
    return found


async def _waited_for(missing: dict[str, str], server: PrefectServer, patience: float) -> dict[str, str]:
    """Those that still have no runs when patience is at its end, or the scheduler has been there."""
    deadline, pause = time.monotonic() + patience, FIRST_PAUSE
    while missing and time.monotonic() + pause <= deadline:
        await anyio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
        missing = await _without_runs(missing, server)
    return missing


async def _without_runs(
    deployments: dict[str, str], server: PrefectServer, since: datetime | None = None
) -> dict[str, str]:
    scheduled = await server.deployments_with_scheduled_runs(tuple(deployments), since=since) if deployments else ()
    return {id_: path for id_, path in deployments.items() if id_ not in scheduled}


async def _gets_a_run(id_: str, server: PrefectServer) -> bool:
    """Have the server make the next run; False where it cannot. A rule may have no date for one, that is no fault."""
    try:
        await server.schedule_runs(id_, at_most=1)
    except ServerError:
        return False
    return True
