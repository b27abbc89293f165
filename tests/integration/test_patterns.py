"""Each pattern of flows/patterns on a real server.

Where what is tested is the same, parents and their runs run in the test's own process: each process costs seconds of
CPU. Tests that need `processes` have a real worker, which can end what it runs.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

import pytest
from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.utilities.callables import parameter_schema

from flows.patterns.batched import batched
from flows.patterns.controlled import controlled
from flows.patterns.critical import critical
from flows.patterns.mixed import mixed
from flows.patterns.parallel import parallel
from flows.patterns.progressive import progressive
from flows.patterns.retry_failed import retry_failed
from flows.patterns.sequential import sequential
from flows.patterns.work_item import work_item
from orchestrator.fanout import ending
from orchestrator.fanout.parent import parent_tag
from orchestrator.submission import trigger_subflow, wait_for_flow_runs

from .api import Api
from .conftest import ROOT, WORKER_POOL, Worker
from .fan_out_parents import leaving_parent
from .in_process import taking_runs
from .runs import until

PARALLEL, LEAVING = "pattern-parallel/patterns", "leaving-parent/patterns"
IN_PROCESS_POOL = "in-process-pool"
Run = dict[str, Any]


@pytest.fixture
def processes(api: Api, worker: Worker) -> Iterator[None]:
    """The flow that the patterns run, and parents, as deployments for a real worker."""
    for flow in (work_item, parallel, leaving_parent):
        deploy(api, flow, worker.pool)
    yield
    for flow in (work_item, parallel, leaving_parent):
        api.delete_deployments_of(flow.name)


@pytest.fixture
def in_process(api: Api) -> Iterator[None]:
    """The flow that the patterns run is executed in this process."""
    deploy(api, work_item, api.ensure_pool(IN_PROCESS_POOL))
    with taking_runs(IN_PROCESS_POOL, work_item):
        yield
    api.delete_deployments_of(work_item.name)


@pytest.fixture
def elsewhere(api: Api) -> Iterator[str]:
    """A deployment of the same flow in another environment's pool, which no worker serves."""
    deployment = deploy(api, work_item, api.ensure_pool("elsewhere-pool"), name="elsewhere")
    yield str(deployment["id"])
    api.call("DELETE", f"/deployments/{deployment['id']}")


def deploy(api: Api, flow: Flow[..., Any], pool: str, name: str = "patterns") -> Run:
    module = flow.fn.__module__.replace(".", "/")
    return api.deploy(
        f"{flow.name}/{name}",
        entrypoint=f"{module}.py:{flow.fn.__name__}",
        path=str(ROOT),
        work_pool_name=pool,
        parameter_openapi_schema=parameter_schema(flow).model_dump(),
        enforce_parameter_schema=True,
    )


@contextmanager
def database_limit(api: Api, limit: int) -> Iterator[None]:
    """So many tasks tagged `database` at a time. What the limit was is set again: all tests share the server."""
    before = [row for row in api.post("/concurrency_limits/filter") if row["tag"] == "database"]
    api.post("/concurrency_limits/", tag="database", concurrency_limit=limit)
    try:
        yield
    finally:
        api.call("DELETE", "/concurrency_limits/tag/database")
        for row in before:
            api.post("/concurrency_limits/", tag="database", concurrency_limit=row["concurrency_limit"])


@contextmanager
def at_a_time(api: Api, limit: int) -> Iterator[None]:
    """So many of the pool's runs are under way at a time."""
    api.patch(f"/work_pools/{WORKER_POOL}", concurrency_limit=limit)
    try:
        yield
    finally:
        api.patch(f"/work_pools/{WORKER_POOL}", concurrency_limit=None)


@contextmanager
def paused(api: Api) -> Iterator[None]:
    """The pool starts no run."""
    api.patch(f"/work_pools/{WORKER_POOL}", is_paused=True)
    try:
        yield
    finally:
        api.patch(f"/work_pools/{WORKER_POOL}", is_paused=False)


async def done(state: State[Any]) -> Any:
    """What a pattern has returned."""
    return await state.aresult()


def id_of(state: State[Any]) -> str:
    return str(state.state_details.flow_run_id)


def children(api: Api, parent_id: str) -> list[Run]:
    """The runs of a parent, in the order of their items."""
    rows: list[Run] = api.post("/flow_runs/filter", flow_runs={"tags": {"all_": [parent_tag(parent_id)]}})
    return sorted(rows, key=lambda row: int(row["parameters"]["item"]))


def under_way(api: Api) -> list[Run]:
    """Runs that a worker has taken."""
    taken = {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}
    rows: list[Run] = api.post("/flow_runs/filter", flow_runs=taken, flows={"name": {"any_": ["work-item"]}})
    return rows


def has_left(api: Api, run_id: str) -> bool:
    """Whether the worker has said its last about a run that has ended: it tells of a crash twice, the second time over
    whatever the run has come to meanwhile."""
    ended = at(api.get(f"/flow_runs/{run_id}"), "end_time")
    logs = api.post("/logs/filter", logs={"flow_run_id": {"any_": [run_id]}}, sort="TIMESTAMP_DESC")
    return any(log["name"] == "prefect.flow_runs.worker" and at(log, "timestamp") > ended for log in logs)


def states(runs: list[Run]) -> list[str]:
    return [run["state_name"] for run in runs]


def at(run: Run, name: str) -> datetime:
    return datetime.fromisoformat(run[name])


def most_at_once(runs: list[Run], start: str) -> int:
    """How many of the spans from a run's `start` to its end overlap."""
    steps = [(at(run, start), 1) for run in runs] + [(at(run, "end_time"), -1) for run in runs]
    return max(accumulate(step for _, step in sorted(steps)))


async def test_sequential_gives_each_run_what_the_one_before_returned(api: Api, in_process: None) -> None:
    state = await sequential(steps=2, return_state=True)

    assert await done(state) == 4
    first, second = children(api, id_of(state))
    assert [first["parameters"]["item"], second["parameters"]["item"]] == [1, 2]
    assert at(second, "created") > at(first, "end_time")


async def test_parallel_creates_all_before_one_ends_in_the_environment_of_the_parent(
    api: Api, processes: None, elsewhere: str
) -> None:
    parent = await trigger_subflow(PARALLEL, {"items": 2})
    assert await wait_for_flow_runs([parent]) == {parent: "Completed"}

    runs = children(api, parent)
    assert states(runs) == ["Completed", "Completed"]
    assert max(at(run, "created") for run in runs) < min(at(run, "end_time") for run in runs)
    assert {run["deployment_id"] for run in runs} == {api.deployment("work-item/patterns")["id"]}
    assert all(run["parent_task_run_id"] for run in runs)  # seen in the parent's graph
    batches = {tag for run in runs for tag in run["tags"] if tag.startswith("batch:work-item-")}
    assert len(batches) == 1


async def test_controlled_keeps_the_limit_of_the_tag_and_its_window(api: Api, in_process: None) -> None:
    with database_limit(api, 1):
        state = await controlled(items=3, in_flight=2, return_state=True)

    runs = children(api, id_of(state))
    assert states(runs) == ["Completed"] * 3
    assert most_at_once(runs, "created") == 2
    work = api.post("/task_runs/filter", flow_runs={"id": {"any_": [run["id"] for run in runs]}})
    assert len(work) == 3
    assert most_at_once(work, "start_time") == 1


async def test_batched_starts_a_batch_when_the_one_before_has_ended(api: Api, in_process: None) -> None:
    state = await batched(items=3, batch_size=2, return_state=True)

    first, second, third = children(api, id_of(state))
    assert list((await done(state)).values()) == ["Completed"] * 3
    assert at(second, "created") < at(first, "end_time")
    assert at(third, "created") > max(at(first, "end_time"), at(second, "end_time"))


async def test_mixed_loads_what_all_extracts_have_returned(api: Api, in_process: None) -> None:
    state = await mixed(sources=2, return_state=True)

    assert await done(state) == 2 * (2 * 1 + 2 * 2)
    *extracts, load = children(api, id_of(state))
    assert [("extract" in run["tags"], "load" in run["tags"]) for run in (*extracts, load)] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    assert at(load, "created") > max(at(run, "end_time") for run in extracts)


async def test_progressive_submits_the_others_after_the_first_ones(api: Api, in_process: None) -> None:
    state = await progressive(items=2, first=1, return_state=True)

    assert list((await done(state)).values()) == ["Completed", "Completed"]
    first, second = children(api, id_of(state))
    assert at(second, "created") > at(first, "end_time")


async def test_progressive_submits_no_others_where_the_first_ones_fail(api: Api, in_process: None) -> None:
    state = await progressive(items=2, first=1, first_fail="always", return_state=True)

    assert state.is_failed() and "Item 0 was told to fail" in str(state.message)
    assert states(children(api, id_of(state))) == ["Failed"]


async def test_a_critical_failure_cancels_the_others(api: Api, processes: None) -> None:
    with at_a_time(api, 1):
        running = asyncio.create_task(critical(others=2, critical_fails="always", return_state=True))
        await until(lambda: bool(under_way(api)))
        with paused(api):  # the others still wait when it fails
            state = await running

    assert state.is_failed() and "Item 0 was told to fail" in str(state.message)
    assert states(children(api, id_of(state))) == ["Failed", "Cancelled", "Cancelled"]


async def test_failed_runs_run_once_more_and_completed_ones_do_not(
    api: Api, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "LEAST_DELAY", timedelta(0))  # there is no process that may still be ending
    state = await retry_failed(items=2, last_fails="once", return_state=True)

    assert list((await done(state)).values()) == ["Completed", "Completed"]
    assert [run["run_count"] for run in children(api, id_of(state))] == [1, 2]


async def test_a_parent_cancelled_in_the_ui_ends_what_runs_and_what_waits_linked_or_not(
    api: Api, processes: None
) -> None:
    parent = await trigger_subflow(LEAVING, {"items": 4})
    with at_a_time(api, 3):  # the parent and two of its children
        await until(lambda: sorted(states(children(api, parent))) == ["Running", "Running", "Scheduled", "Scheduled"])
        with paused(api):  # what waits is not to begin in the parent's place
            api.post(f"/flow_runs/{parent}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
            await until(lambda: states(children(api, parent)) == ["Cancelled"] * 4)

    runs = children(api, parent)
    assert [bool(run["parent_task_run_id"]) for run in runs] == [True, False, True, False]
    assert [run["run_count"] for run in runs] == [1, 1, 0, 0]


async def test_a_killed_parent_ends_its_children_and_runs_them_again_when_it_is_retried(
    api: Api, processes: None
) -> None:
    parent = await trigger_subflow(PARALLEL, {"items": 2})
    await until(lambda: api.get(f"/flow_runs/{parent}")["state_type"] in ("PENDING", "RUNNING"))
    with paused(api):  # what a worker has just taken would be some minutes in Cancelling
        await until(lambda: len(children(api, parent)) == 2)
        os.kill(int(api.get(f"/flow_runs/{parent}")["infrastructure_pid"]), signal.SIGKILL)
        await until(lambda: states(children(api, parent)) == ["Cancelled", "Cancelled"])
    assert api.get(f"/flow_runs/{parent}")["state_name"] == "Crashed"
    before = [run["id"] for run in children(api, parent)]

    await until(lambda: has_left(api, parent))
    api.post(f"/flow_runs/{parent}/set_state", state={"type": "SCHEDULED", "name": "AwaitingRetry"})
    assert await wait_for_flow_runs([parent]) == {parent: "Completed"}
    assert states(children(api, parent)) == ["Completed", "Completed"]
    assert [run["id"] for run in children(api, parent)] == before
