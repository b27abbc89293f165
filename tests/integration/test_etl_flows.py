"""The ETL flows from end to end: a real server, a real process worker, real tables."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.states import Completed, Failed
from sqlalchemy import text
from sqlalchemy.engine import make_url

from flows import warehouse
from flows.main_etl import main_etl
from flows.process_table_etl import process_table_etl
from flows.production_etl import production_etl
from flows.sub_etl import sub_etl
from orchestrator.submission import trigger_subflow, wait_for_flow_runs

from .api import Api
from .conftest import ROOT, PrefectServer, Worker
from .runs import until

TABLE = "process-table-etl"
DECLARED = {
    "main-etl-job/main-etl-deployment",
    "pre-etl-job/pre-etl-deployment",
    "sub-etl-job/sub-etl-deployment",
    "final-etl-job/final-etl-deployment",
    "process-table-etl/process-table-etl-deployment",
    "cleanup-flow-1/cleanup-flow-1-deployment",
    "cleanup-flow-2/cleanup-flow-2-deployment",
}


@pytest.fixture(scope="module", autouse=True)
def database_limit(api: Api) -> None:
    """The limit is there before the first task asks: Prefect's client believes for 5 s that a tag has none."""
    api.post("/concurrency_limits/", tag="database", concurrency_limit=3)


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer, worker: Worker) -> Iterator[Worker]:
    """The deployments of prefect.yaml that need no container, made by Prefect's own command."""
    subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--name", "*-deployment"],
        env={**prefect_server.environment, "PREFECT_DEFAULT_WORK_POOL_NAME": worker.pool},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    yield worker


async def children(client: PrefectClient, run_id: str) -> list[FlowRun]:
    """The runs that are linked to a run."""
    linked = FlowRunFilterParentFlowRunId(any_=[UUID(run_id)])
    return await client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=linked))


async def test_prefect_yaml_declares_the_deployments_of_the_design(deployed: Worker) -> None:
    async with get_client() as client:
        flows = {flow.id: flow.name for flow in await client.read_flows()}
        deployments = await client.read_deployments()
    found = {f"{flows[deployment.flow_id]}/{deployment.name}" for deployment in deployments}

    assert found >= DECLARED
    names = {entry["name"] for entry in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    assert names - {"process-table-etl-container"} == {path.partition("/")[2] for path in DECLARED}


async def test_main_etl_runs_both_phases_and_loads_every_row(deployed: Worker) -> None:
    main = await trigger_subflow("main-etl-job/main-etl-deployment", {"tables": 2})
    assert await wait_for_flow_runs([main], poll_interval=1) == {main: "Completed"}

    async with get_client() as client:
        phases = {run.name: run for run in await children(client, main)}
        flows = {flow.id: flow.name for flow in await client.read_flows()}
        by_flow = {flows[run.flow_id]: run for run in phases.values()}
        sub_children = await children(client, str(by_flow["sub-etl-job"].id))
        final_id = by_flow["final-etl-job"].id
        artifacts = await client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[final_id]))
        )
    assert by_flow.keys() == {"pre-etl-job", "sub-etl-job", "final-etl-job"}
    assert sorted(flows[run.flow_id] for run in sub_children) == [
        "cleanup-flow-1",
        "cleanup-flow-2",
        "process-table-etl",
        "process-table-etl",
    ]
    runs = [*by_flow.values(), *sub_children]
    assert all(run.state and run.state.is_completed() for run in runs)
    first_phase_end = max(by_flow[name].end_time for name in ("pre-etl-job", "sub-etl-job"))
    assert by_flow["final-etl-job"].start_time > first_phase_end
    assert {artifact.key for artifact in artifacts} == {"etl-row-counts", "etl-summary"}

    with warehouse.connect(make_url(deployed.target_url)) as target:
        loads = warehouse.check_target(target)
        assert [(load.table_number, load.extracted) for load in loads] == [(0, 2000), (1, 2100)]
        assert warehouse.staging_tables(target) == []
        with target.connect() as connection:
            audits = connection.execute(text("SELECT tables, sales FROM audits")).all()
    assert audits == [(2, sum(load.loaded for load in loads))]


async def test_a_table_waits_for_its_source_to_be_filled(
    prefect_server: PrefectServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/source.db")
    monkeypatch.setenv("TARGET_DATABASE_URL", f"sqlite:///{tmp_path}/target.db")
    processing = asyncio.create_task(asyncio.to_thread(process_table_etl, 1))
    await until(lambda: any("table_01" in line and "0 of 2100 rows" in line for line in caplog.messages))
    with warehouse.connect(warehouse.source_url()) as source:
        warehouse.fill_source(source)

    counts = await processing
    assert (counts["table_number"], counts["extracted"]) == (1, 2100)


async def test_a_failed_phase_stops_the_main_job_and_names_the_child(deployed: Worker) -> None:
    async with get_client() as client:
        await client.update_work_pool(deployed.pool, WorkPoolUpdate(is_paused=True))
        try:
            main = asyncio.create_task(main_etl(tables=1, return_state=True))
            pre, sub = await phase_one(client)
            await client.set_flow_run_state(pre.id, Completed(), force=True)
            await client.set_flow_run_state(sub.id, Failed(message="table_00 broke"), force=True)
            async with asyncio.timeout(60):
                state = await main
        finally:
            await client.update_work_pool(deployed.pool, WorkPoolUpdate(is_paused=False))
        started = await children(client, str(state.state_details.flow_run_id))

    assert state.is_failed()
    assert f"sub-etl-job/{sub.name} ({str(sub.id)[:8]}): Failed: table_00 broke" in state.message
    assert {run.id for run in started} == {pre.id, sub.id}


async def test_a_retry_of_the_sub_job_runs_only_its_failed_tables_again(deployed: Worker) -> None:
    async with get_client() as client:
        await client.update_work_pool(deployed.pool, WorkPoolUpdate(is_paused=True))
        try:
            sub = asyncio.create_task(sub_etl(tables=2, return_state=True))
            good, bad = sorted(await scheduled(client, 2, TABLE), key=lambda run: int(run.parameters["table"]))
            await client.set_flow_run_state(good.id, Completed(), force=True)
            await client.set_flow_run_state(bad.id, Failed(message="table_01 broke"), force=True)
            assert [run.id for run in await scheduled(client, 1, TABLE)] == [bad.id]
            await client.set_flow_run_state(bad.id, Completed(), force=True)
            for cleanup in ("cleanup-flow-1", "cleanup-flow-2"):
                (run,) = await scheduled(client, 1, cleanup)
                await client.set_flow_run_state(run.id, Completed(), force=True)
            async with asyncio.timeout(60):
                state = await sub
        finally:
            await client.update_work_pool(deployed.pool, WorkPoolUpdate(is_paused=False))

    assert await state.aresult() == {str(good.id): "Completed", str(bad.id): "Completed"}


async def phase_one(client: PrefectClient) -> list[FlowRun]:
    """The scheduled runs of pre-etl-job and sub-etl-job, in this order, once there are both."""
    found = await scheduled(client, 2, "pre-etl-job", "sub-etl-job")
    return sorted(found, key=lambda run: "tables" in run.parameters)


async def scheduled(client: PrefectClient, count: int, *flows: str) -> list[FlowRun]:
    """The runs of some flows that wait to be started, once there are so many."""
    waiting = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    found: list[FlowRun] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found = await client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=list(flows))),
                flow_run_filter=FlowRunFilter(state=waiting),
            )
            await asyncio.sleep(0.1)
    return found


async def test_production_etl_keeps_the_limit_of_its_tag(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/source.db")
    monkeypatch.setenv("TARGET_DATABASE_URL", f"sqlite:///{tmp_path}/target.db")
    state = await asyncio.to_thread(production_etl, return_state=True)

    rows = await state.result()
    assert rows == {warehouse.table_name(table): warehouse.expected_rows(table) for table in range(20)}
    async with get_client() as client:
        queries = await queries_of(client, state.state_details.flow_run_id, 20)
    starts = [(query.start_time, 1) for query in queries]
    ends = [(query.end_time, -1) for query in queries]
    at_once = list(accumulate(step for _, step in sorted([*starts, *ends])))
    assert max(at_once) <= 3


async def queries_of(client: PrefectClient, flow_run_id: UUID, count: int) -> list[TaskRun]:
    """The finished sql-query tasks of a run. They reach the server a moment after the run has ended."""
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    async with asyncio.timeout(60):
        while True:
            runs = await client.read_task_runs(flow_run_filter=of_run)
            queries = [run for run in runs if run.name.startswith("sql-query") and run.end_time]
            if len(queries) == count:
                return queries
            await asyncio.sleep(0.2)
