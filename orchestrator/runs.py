"""Starting one deployed run and following it, with the runs that it starts, to its end.

Where `submission` is for flows that fan out, this is for a person at a terminal: the state as it changes, the task at
work, the children as they end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import anyio
import psutil
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterId,
    TaskRunFilterState,
    TaskRunFilterStateType,
    TaskRunFilterSubFlowRuns,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from orchestrator.errors import ConfigurationError, OrchestratorError
from orchestrator.faults import did_you_mean
from orchestrator.model import RunReport, TouchedRuns
from orchestrator.server import PAGE, PrefectServer, our_errors

POLL_SECONDS = 1.0
MOST_PAGES = 10  # of runs that a plan looks at: enough to say what it touches, and a plan stays quick
WAITING = ("SCHEDULED",)
UNDER_WAY = ("PENDING", "RUNNING", "PAUSED", "CANCELLING")

# What a state that people wait in means, where its name does not tell.
WAITS = {
    "AwaitingConcurrencySlot": "another run holds the deployment's only slot, or a killed one has not freed it yet",
    "Late": "no worker has taken it: is one online in its pool?",
}


async def find_deployment(server: PrefectServer, path: str) -> DeploymentResponse:
    """A deployment by `flow/deployment`.

    Raises:
        OrchestratorError: there is none of that name.
    """
    with our_errors(server.api_url):
        try:
            return await server.client.read_deployment_by_name(path)
        except (ObjectNotFound, ValueError) as error:
            raise OrchestratorError(
                f"There is no deployment {path!r}.",
                location=server.api_url,
                remedy="Names are flow/deployment; `orchestrator status` lists those of this environment.",
            ) from error


async def start_run(server: PrefectServer, deployment: DeploymentResponse, parameters: Mapping[str, Any]) -> str:
    """Start a run through the server, as a person would from the UI; returns its id.

    Raises:
        ConfigurationError: a parameter that the flow does not have. The server takes it, and the run crashes.
    """
    known = list((deployment.parameter_openapi_schema or {}).get("properties", {}))
    for name in parameters:
        if name not in known:
            raise ConfigurationError(
                f"The flow has no parameter {name!r}.",
                location=deployment.name,
                remedy=f"{did_you_mean(name, known)}Parameters: {', '.join(known) or 'none'}.",
            )
    with our_errors(server.api_url):
        run = await server.client.create_flow_run_from_deployment(deployment.id, parameters=dict(parameters))
    return str(run.id)


async def touched_runs(server: PrefectServer, ids: Sequence[str]) -> dict[str, TouchedRuns]:
    """The runs of some deployments that have not ended: what an update or a delete of them concerns.

    Args:
        server: where they are.
        ids: the deployments.

    Returns:
        For each of the deployments its runs. No more than some thousand runs are looked at, the earliest first; where
        that cut something off, `is_more` says so.

    Raises:
        ServerUnreachable, ServerError: the server did not answer.
    """
    found: dict[str, TouchedRuns] = {}
    chunks = [list(ids[start : start + PAGE]) for start in range(0, len(ids), PAGE)]
    for chunk in chunks:
        rows, is_more = await _runs_under_way(server, chunk, most_pages=max(1, MOST_PAGES // len(chunks)))
        of_each: dict[str, list[Mapping[str, Any]]] = {id_: [] for id_ in chunk}
        for row in rows:
            of_each[row["deployment_id"]].append(row)
        found |= {id_: _touched(runs, is_more=is_more) for id_, runs in of_each.items()}
    return found


async def _runs_under_way(
    server: PrefectServer, ids: Sequence[str], *, most_pages: int
) -> tuple[Sequence[Mapping[str, Any]], bool]:
    """Runs of deployments that have not ended, those that began first; and whether there are more."""
    rows: dict[str, Mapping[str, Any]] = {}  # by id: equal times may come in another order on the next page
    query = {
        "deployments": {"id": {"any_": list(ids)}},
        "flow_runs": {"state": {"type": {"any_": [*UNDER_WAY, *WAITING]}}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    for number in range(most_pages):
        page = await server.request("POST", "/flow_runs/filter", json={**query, "limit": PAGE, "offset": number * PAGE})
        rows |= {row["id"]: row for row in page}
        if len(page) < PAGE:
            return list(rows.values()), False
    return list(rows.values()), True


def _touched(rows: Sequence[Mapping[str, Any]], *, is_more: bool) -> TouchedRuns:
    waiting = [row for row in rows if row["state_type"] in WAITING]
    starts = sorted(str(row["expected_start_time"]) for row in waiting if row["expected_start_time"])
    return TouchedRuns(
        scheduled=len(waiting),
        running=len(rows) - len(waiting),
        next_start=starts[0] if starts else None,
        is_more=is_more,
    )


async def rename_run(server: PrefectServer, run_id: UUID, name: str) -> None:
    with our_errors(server.api_url):
        await server.client.update_flow_run(run_id, name=name)


async def latest_completed(server: PrefectServer, deployment: DeploymentResponse) -> FlowRun | None:
    """The latest run of a deployment that completed on the deployment's present version, among its last 200."""
    completed = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED]))
    with our_errors(server.api_url):
        runs = await server.client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            flow_run_filter=FlowRunFilter(state=completed),
            sort=FlowRunSort.START_TIME_DESC,
            limit=PAGE,
        )
    return next((run for run in runs if run.deployment_version == deployment.version), None)


async def end_lost_runs(server: PrefectServer, pool: str, is_ours: Callable[[str], bool]) -> tuple[str, ...]:
    """Mark runs as Crashed whose process on this machine is gone.

    A worker that is killed reports nothing: its runs stay Running on the server and keep their concurrency slots (seen
    for ten minutes, after which nobody waited any longer). The worker's name stands in a run's labels, the pid of its
    process beside it; only what is surely dead is touched.

    Args:
        server: where the runs are.
        pool: whose runs.
        is_ours: whether a worker of that name ran on this machine.

    Returns:
        The names of the runs that were marked.
    """
    under_way = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
    with our_errors(server.api_url):
        runs = await server.client.read_flow_runs(
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            flow_run_filter=FlowRunFilter(state=under_way),
            limit=PAGE,
        )
        lost = [run for run in runs if is_ours(_worker_of(run)) and _is_gone(run.infrastructure_pid)]
        for run in lost:
            await server.client.set_flow_run_state(run.id, Crashed(message="Its process is gone."))
    return tuple(run.name for run in lost)


def _worker_of(run: FlowRun) -> str:
    return str(run.labels.get("prefect.worker.name", ""))


def _is_gone(infrastructure_pid: str | None) -> bool:
    """Whether a process worker's run has no process any more; the worker notes `pid` or `host:pid`."""
    pid = (infrastructure_pid or "").rpartition(":")[2]
    return pid.isdigit() and not psutil.pid_exists(int(pid))


async def follow(
    server: PrefectServer, run_id: str, on_change: Callable[[str], None], on_leave: Callable[[str], None]
) -> RunReport:
    """Follow a run until it has ended.

    Args:
        server: where it runs.
        run_id: which one.
        on_change: told in words how it stands, each time that changes.
        on_leave: told in words that the run goes on, if the following is interrupted.

    Returns:
        How it ended, with all runs that it started.
    """
    said = ""
    try:
        while True:
            run = await _read(server, run_id)
            words = _in_words(run, await _tasks_at_work(server, run), await _children(server, [run.id]))
            if words != said:
                on_change(said := words)
            if run.state is not None and run.state.is_final():
                return await _report(server, run)
            await anyio.sleep(POLL_SECONDS)
    except anyio.get_cancelled_exc_class():
        on_leave(f"The run goes on: {run_url(server, run_id)} ({said or 'just submitted'})")
        raise


def run_url(server: PrefectServer, run_id: str) -> str:
    """Where a run is seen in the UI."""
    return f"{ui_url(server.api_url)}/runs/flow-run/{run_id}"


def ui_url(api_url: str) -> str:
    """Where people look: the API's address without its path."""
    return api_url.rstrip("/").removesuffix("/api")


_SUFFIX = re.compile(r"-[0-9a-f]{3}$")  # Prefect's own, of tasks that are not named anew for each run


async def _tasks_at_work(server: PrefectServer, run: FlowRun) -> list[str]:
    """The names of the tasks that run now, without the suffix that tells equal ones apart."""
    running = TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING]))
    with our_errors(server.api_url):
        tasks = await server.client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
            task_run_filter=TaskRunFilter(state=running, subflow_runs=TaskRunFilterSubFlowRuns(exists_=False)),
            limit=PAGE,
        )
    return sorted({_SUFFIX.sub("", task.name) for task in tasks})


async def _read(server: PrefectServer, run_id: str) -> FlowRun:
    with our_errors(server.api_url):
        return await server.client.read_flow_run(UUID(run_id))


async def _children(server: PrefectServer, parents: Sequence[UUID]) -> list[FlowRun]:
    """All children of some runs, in pages."""
    found: list[FlowRun] = []
    while True:
        with our_errors(server.api_url):
            page = await server.client.read_flow_runs(
                flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=list(parents))),
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
                limit=PAGE,
                offset=len(found),
            )
        found += page
        if len(page) < PAGE:
            return found


async def _report(server: PrefectServer, run: FlowRun) -> RunReport:
    """The run with all runs below it, each parent before its children.

    Read level by level, so that the requests grow with the depth and the pages, not with the number of runs.
    """
    levels = [[run]]
    while below := await _children(server, [parent.id for parent in levels[-1]]):
        levels.append(below)
    runs = [each for level in levels for each in level]
    parents = await _parents(server, runs[1:])
    flows = await _flow_names(server, {each.flow_id for each in runs})
    below_of: dict[UUID, list[FlowRun]] = {}
    for each in runs[1:]:
        if each.id in parents:
            below_of.setdefault(parents[each.id], []).append(each)

    def tree(each: FlowRun, depth: int) -> Iterator[RunReport]:
        yield _as_report(each, flows, depth)
        for child in below_of.get(each.id, []):
            yield from tree(child, depth + 1)

    top, *descendants = tree(run, 0)
    return replace(top, descendants=tuple(descendants), artifact=await _artifact(server, run.id))


async def _parents(server: PrefectServer, runs: Sequence[FlowRun]) -> dict[UUID, UUID]:
    """Run → the run that started it. A child knows the task run that stands for it in its parent."""
    holders = [run.parent_task_run_id for run in runs if run.parent_task_run_id]
    parent_of: dict[UUID, UUID] = {}
    for start in range(0, len(holders), PAGE):
        ids = TaskRunFilterId(any_=holders[start : start + PAGE])
        with our_errors(server.api_url):
            tasks = await server.client.read_task_runs(task_run_filter=TaskRunFilter(id=ids), limit=PAGE)
        parent_of |= {task.id: task.flow_run_id for task in tasks if task.flow_run_id}
    return {run.id: parent_of[run.parent_task_run_id] for run in runs if run.parent_task_run_id in parent_of}


def _as_report(run: FlowRun, flows: Mapping[UUID, str], depth: int) -> RunReport:
    return RunReport(
        id=str(run.id),
        name=run.name,
        flow=flows.get(run.flow_id, "?"),
        state_type=run.state_type.value if run.state_type else "",
        state_name=run.state_name or "",
        message=(run.state.message if run.state else None) or "",
        seconds=run.total_run_time.total_seconds(),
        depth=depth,
    )


async def _flow_names(server: PrefectServer, ids: Collection[UUID]) -> dict[UUID, str]:
    with our_errors(server.api_url):
        flows = await server.client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=list(ids))), limit=PAGE)
    return {flow.id: flow.name for flow in flows}


async def _artifact(server: PrefectServer, run_id: UUID) -> str:
    with our_errors(server.api_url):
        artifacts = await server.client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id])), limit=PAGE
        )
    texts = [artifact for artifact in artifacts if artifact.type == "markdown" and isinstance(artifact.data, str)]
    texts.sort(key=lambda artifact: str(artifact.created))
    return str(texts[-1].data) if texts else ""


def _in_words(run: FlowRun, tasks: Sequence[str], children: Sequence[FlowRun]) -> str:
    """`Running; at work: Plan; children: 12 Completed, 3 Running`."""
    states = Counter(child.state_name or "unknown" for child in children)
    counted = ", ".join(f"{count} {name}" for name, count in sorted(states.items()))
    at_work = f"at work: {', '.join(tasks)}" if tasks else ""
    below = f"children: {counted}" if counted else ""
    waits = WAITS.get(run.state_name or "", "")
    return "; ".join(part for part in (str(run.state_name), waits, at_work, below) if part)
