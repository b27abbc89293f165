"""From nothing to a running deployer, in steps that each do only what is missing.

    address ─► server ─► pools and limits ─► worker ─► deployer ─► first sync ─► (one run)

The first sync is started through the server and runs on the worker, the way a person would start it from the UI: if
it works here, it works there. On a running system every step finds its work done, and the whole takes seconds.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import httpx

from orchestrator import live, pipeline, pools
from orchestrator.config import DEPLOYER_FLOW, EnvironmentConfig, WorkPoolConfig
from orchestrator.desired import Selection
from orchestrator.errors import (
    ConfigurationError,
    LocalProcessError,
    OrchestratorError,
    PortTaken,
    RefusedError,
    RunFailed,
    ServerUnreachable,
)
from orchestrator.holds import held_back
from orchestrator.local import LocalProcess, LocalState, is_loopback, port_holder, server_key, worker_key
from orchestrator.masking import shown_url
from orchestrator.model import BootstrapResult, Hold, Plan, ResourceChange, Resources, RunReport, Step
from orchestrator.pipeline import Asked, owner_of
from orchestrator.recording import desired_digest
from orchestrator.resources import apply_resources, plan_resources, resources_of
from orchestrator.runs import end_lost_runs, find_deployment, follow, latest_completed, run_url, start_run, ui_url
from orchestrator.server import PrefectServer, active_api_url, open_server
from orchestrator.terms import terms_of

SERVER_START_SECONDS = 120.0  # the first start creates the database: 15 s on a small machine, longer on a busy one
WORKER_START_SECONDS = 90.0
DEFAULT_API_URL = "http://127.0.0.1:4270/api"  # not 4200: docs/decisions/0005-a-port-of-our-own.md
NOTHING_TO_SYNC = "everything is as the repository says; no run needed"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked of bootstrap."""

    root: Path
    environment: str
    api_url: str | None = None
    run: str | None = None  # flow/deployment to run at the end
    again: bool = False  # run it even if its present version has completed already


class RunListener(Protocol):
    """Who hears how a run goes."""

    def doing(self, words: str) -> None: ...

    def left(self, words: str) -> None:
        """The following ends here, the run does not."""


class Listener(RunListener, Protocol):
    """Who hears how bootstrap goes; the command line draws it."""

    def starting(self, name: str) -> None: ...

    def done(self, step: Step) -> None: ...


class Progress:
    """The steps as they come."""

    def __init__(self, listener: Listener) -> None:
        self.steps: list[Step] = []
        self._listener = listener
        self.doing, self.left = listener.doing, listener.left

    async def step(self, name: str, work: Awaitable[tuple[str, bool, T]]) -> T:
        """Do one step and tell what came of it (in words), and whether it changed anything."""
        self._listener.starting(name)
        started = time.monotonic()
        outcome, changed, value = await work
        self.steps.append(Step(name=name, outcome=outcome, seconds=time.monotonic() - started, changed=changed))
        self._listener.done(self.steps[-1])
        return value


async def bootstrap(request: Request, progress: Progress) -> BootstrapResult:
    """Bring an environment up; see the module's text for the steps.

    Raises:
        ConfigurationError: what people wrote has faults. Nothing was changed.
        ServerUnreachable, PortTaken, LocalProcessError: there is no server, and none could be started.
        RefusedError, RunFailed: the sync was refused, or failed altogether.
    """
    asked = await progress.step("configuration", _read(request))
    settings = asked.settings
    api_url = await progress.step("address", _address(settings.environment, request.api_url))
    state = LocalState(settings.root)
    await progress.step("server", _ensure_server(api_url, state))
    async with open_server(api_url) as server:
        hold = await held_back(server, owner_of(settings), desired_digest(asked.desired, settings.root))
        wanted = resources_of(settings.environment)
        await progress.step("pools and limits", ensure_resources(server, wanted, keeps=hold is not None))
        for pool in settings.environment.work_pools.values():
            if pool.local_worker:
                await progress.step("worker", _ensure_worker(server, pool, state, api_url))
        plan = await progress.step("deployer", _register_deployer(asked, api_url))
        sync = await progress.step("sync", _sync(server, plan, settings.environment, progress, hold))
        run = await progress.step("run", _run(server, request, progress)) if request.run else None
    return BootstrapResult(
        environment=request.environment,
        api_url=shown_url(api_url),
        ui_url=ui_url(shown_url(api_url)),
        steps=tuple(progress.steps),
        sync=sync,
        run=run,
        problems=asked.desired.problems,
    )


# ---------------------------------------------------------------------------------------------------------
# Configuration and server
# ---------------------------------------------------------------------------------------------------------


async def _read(request: Request) -> tuple[str, bool, Asked]:
    settings = pipeline.load_settings(request.root, request.environment)
    discovery = pipeline.discover_flows(settings.root, settings.project, settings.declarations)
    validation = pipeline.validate(settings, discovery)
    desired = await anyio.to_thread.run_sync(
        pipeline.work_out,
        settings,
        discovery,
        validation,
        abandon_on_cancel=True,  # Ctrl-C waits for no child process
    )
    if "python" not in settings.environment.work_pools:
        raise ConfigurationError(
            f"The environment {request.environment!r} has no work pool of kind python to run the deployer.",
            location=f"{settings.project.environments}/{request.environment}.yaml",
            remedy="Name one there: work_pools: {python: {name: my-pool, type: process, local_worker: true}}.",
        )
    found = f"{len(discovery.flows)} flows, {len(desired.deployments)} deployments in {request.environment}"
    return found, False, Asked(settings=settings, discovery=discovery, desired=desired)


async def _address(environment: EnvironmentConfig, given: str | None) -> tuple[str, bool, str]:
    named = pipeline.server_address(environment, given, writes=True)
    source = "--api-url" if given else f"environment {environment.name}"
    if named is None:
        named, source = active_api_url(), "Prefect's active profile"
    if named is None:
        named, source = DEFAULT_API_URL, "nothing names one: the embedded default"
    return f"{shown_url(named)} ({source})", False, named


async def _ensure_server(api_url: str, state: LocalState) -> tuple[str, bool, None]:
    if await is_healthy(api_url):
        own = state.running("server", server_key(api_url))
        whose = f"started earlier (pid {own.pid}, log {own.log})" if own else "not started by us"
        return f"answers; {whose}", False, None
    if not is_loopback(api_url):
        raise ServerUnreachable(
            "The Prefect server does not answer.",
            location=shown_url(api_url),
            remedy="Check that it runs, that the address in the environment's file is right (it ends in /api), "
            "and that no proxy or firewall stands between.",
        )
    holder = port_holder(api_url)
    if holder is not None:
        raise PortTaken(
            f"The port is held by {holder}, which does not answer as a Prefect server.",
            location=api_url,
            remedy="Stop that process, or give another address in the environment's file or with --api-url.",
        )
    _refuse_second_server(state)
    process = state.start_server(api_url)
    await _until_healthy(api_url, process, state)
    return f"started Prefect's own server on SQLite (pid {process.pid}, log {process.log})", True, None


def _refuse_second_server(state: LocalState) -> None:
    """One folder holds one database: two servers on it would undo each other's work."""
    for process in state.processes():
        if process.role == "server" and process.find() is not None:
            raise LocalProcessError(
                f"This checkout's own server runs at another address already (pid {process.pid}).",
                location=process.name,
                remedy="Use that one with --api-url, or stop it with `orchestrator down`.",
            )


async def is_healthy(api_url: str) -> bool:
    """Whether a Prefect server answers at this address."""
    try:
        async with httpx.AsyncClient(timeout=5.0) as client:
            answer = await client.get(f"{api_url.rstrip('/')}/health")
        return answer.status_code == 200 and answer.json() is True
    except (httpx.HTTPError, ValueError):
        return False


async def _until_healthy(api_url: str, process: LocalProcess, state: LocalState) -> None:
    """Wait for a server that we started; one that is not up in time is stopped again."""
    try:
        with anyio.move_on_after(SERVER_START_SECONDS):
            while process.find() is not None:
                if await is_healthy(api_url):
                    return
                await anyio.sleep(0.3)
        raise LocalProcessError(
            "Prefect's server did not come up.", location=api_url, remedy=f"Its log says why: {process.log}"
        )
    except BaseException:  # Ctrl-C included: nothing half-started stays
        state.stop(process)
        raise


# ---------------------------------------------------------------------------------------------------------
# Pools, limits, worker
# ---------------------------------------------------------------------------------------------------------


async def ensure_resources(server: PrefectServer, wanted: Resources, *, keeps: bool = False) -> tuple[str, bool, None]:
    """Create what is missing of pools, queues and limits, and set what differs.

    Args:
        server: where.
        wanted: what the environment declares.
        keeps: change nothing that there is: somebody went back to an older revision.

    Raises:
        ConfigurationError: a pool of one of the names has another type. Nothing was changed.
        OrchestratorError: the server refused something.
    """
    changes = plan_resources(wanted, await pools.read_resources(server, wanted))
    _refuse_conflicts(changes)
    changes = tuple(change for change in changes if not keeps or change.action != "update")
    results = await apply_resources(changes, pools.ResourceDoor(server))
    failed = [result for result in results if result.status not in ("applied", "unchanged")]
    if failed:
        raise OrchestratorError(" ".join(str(result.error) for result in failed), location=failed[0].label)
    words = [_outcome(change) for change in changes]
    return "; ".join(words) or "none asked for", any(change.writes for change in changes), None


def _refuse_conflicts(changes: Sequence[ResourceChange]) -> None:
    conflicts = [change for change in changes if change.action == "conflict" and change.resource == "work pool"]
    if conflicts:
        reasons = "; ".join(reason for change in conflicts for reason in change.reasons)
        raise ConfigurationError(
            f"{reasons[0].upper()}{reasons[1:]}.",
            location=f"{conflicts[0].resource} {conflicts[0].name}",
            remedy="Give the pool another name in the environment's file, or delete the one on the server.",
        )


def _outcome(change: ResourceChange) -> str:
    """What was done, in words: `database: slots 1 → 3`."""
    if change.action == "update":
        return f"{change.name}: " + ", ".join(
            f"{diff.path.replace('_', ' ')} {diff.before} → {diff.after}" for diff in change.fields
        )
    return f"{change.name}: {'created' if change.action == 'create' else 'there'}"


async def _ensure_worker(
    server: PrefectServer, pool: WorkPoolConfig, state: LocalState, api_url: str
) -> tuple[str, bool, None]:
    """Start a local worker, unless one is online.

    The server takes a worker for online until its heartbeat has been missing for a while. Of a worker that was started
    from here we know better: it lives as long as its process.
    """
    own = state.running("worker", worker_key(pool.name, api_url))
    online = await pools.online_workers(server, pool.name)
    alive = sorted(name for name in online if not state.is_ours(name) or (own is not None and name == own.name))
    if alive:
        return f"online: {', '.join(alive)}", False, None
    if own is not None:  # it runs, but lost the server: a pool needs one that is online
        state.stop(own)
    lost = await end_lost_runs(server, pool.name, state.is_ours)
    name = state.new_worker_name()
    process = state.start_worker(pool=pool.name, type_=pool.type, name=name, api_url=api_url)
    await _until_online(server, pool, process, state)
    words = f"started {name} (pid {process.pid}, log {process.log})"
    return f"{words}; marked as crashed, their process is gone: {', '.join(lost)}" if lost else words, True, None


async def _until_online(server: PrefectServer, pool: WorkPoolConfig, process: LocalProcess, state: LocalState) -> None:
    """Wait for a worker that we started; one that is not online in time is stopped again."""
    try:
        with anyio.move_on_after(WORKER_START_SECONDS):
            while process.find() is not None:
                if process.name in await pools.online_workers(server, pool.name):
                    return
                await anyio.sleep(0.5)
        raise LocalProcessError(
            "The worker did not come online.", location=pool.name, remedy=f"Its log says why: {process.log}"
        )
    except BaseException:
        state.stop(process)
        raise


# ---------------------------------------------------------------------------------------------------------
# Deployer and runs
# ---------------------------------------------------------------------------------------------------------


async def _register_deployer(asked: Asked, api_url: str) -> tuple[str, bool, Plan]:
    """Put the deployer's own deployment on the server; returns the plan for everything else."""
    environment, desired = asked.settings.environment, asked.desired
    path = f"{DEPLOYER_FLOW}/{environment.deployer_name}"
    own = Selection(only=(path,))
    plan = await live.plan_changes(desired, environment.policy, api_url=api_url, selection=own)
    terms = terms_of(asked, "bootstrap", selection=own, keeps_commit=True, verifies=False)
    result = await live.apply_changes(plan, api_url=api_url, terms=terms)
    if result.failed:
        raise OrchestratorError(str(result.failed[0].error), location=path)
    words = {"create": "created", "update": "updated", "unchanged": "up to date"}[plan.changes[0].action]
    rest = await live.plan_changes(desired, environment.policy, api_url=api_url)
    return f"{path} {words}", plan.has_changes, rest


async def _sync(
    server: PrefectServer, plan: Plan, environment: EnvironmentConfig, progress: Progress, hold: Hold | None
) -> tuple[str, bool, RunReport | None]:
    """Run deploy-everything in apply mode, unless there is nothing for it to do.

    A sync that could do only a part (a flow file is broken) is no reason to stop: the rest is deployed.

    Raises:
        RefusedError: a safety rule forbids the sync.
        RunFailed: the sync did nothing.
    """
    broken = sum(problem.severity == "error" for problem in plan.problems)
    left_out = f"; left out: {broken} with faults, see below" if broken else ""
    if not plan.has_changes and not plan.summary["conflict"]:
        return f"everything else is as the repository says{left_out}" if broken else NOTHING_TO_SYNC, False, None
    if hold is not None:
        return f"left at revision {hold.revision}, to which {hold.by or 'somebody'} went back{left_out}", False, None
    path = f"{DEPLOYER_FLOW}/{environment.deployer_name}"
    report = await run_and_follow(server, path, {"mode": "apply"}, progress)
    if report.succeeded or report.state_name == "Degraded":
        return f"{report.name} ({report.state_name}){left_out}", True, report
    kind = RefusedError if report.state_name == "Refused" else RunFailed
    raise kind(
        f"deploy-everything ended as {report.state_name}: {report.message}",
        location=run_url(server, report.id),
        remedy="Correct what it names and run bootstrap again.",
    )


async def _run(server: PrefectServer, request: Request, progress: Progress) -> tuple[str, bool, RunReport | None]:
    """Run one deployment, unless its present version has completed before."""
    path = request.run or ""
    before = None if request.again else await latest_completed(server, await find_deployment(server, path))
    if before is not None:
        return f"{path} completed before ({before.name}); `orchestrator run` runs it again", False, None
    report = await run_and_follow(server, path, {}, progress)
    return f"{path}: {report.name} {report.state_name}", True, report


async def run_and_follow(
    server: PrefectServer, path: str, parameters: dict[str, object], listener: RunListener
) -> RunReport:
    """Start a run of a deployment and follow it to its end, whatever that is."""
    deployment = await find_deployment(server, path)
    run_id = await start_run(server, deployment, parameters)
    listener.doing(f"{path}: {run_url(server, run_id)}")
    return await follow(server, run_id, lambda words: listener.doing(f"{path}: {words}"), listener.left)
