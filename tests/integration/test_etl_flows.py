"""The ETL flows from end to end: a real server, a real process worker, real tables."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url

from flows import warehouse
from flows.production_etl import production_etl
from orchestrator.errors import RunFailed
from orchestrator.submission import trigger_subflow, wait_for_flow_runs

from .conftest import ROOT, PrefectServer, Worker

DECLARED = {
    "main-etl-job/main-etl-deployment",
    "pre-etl-job/pre-etl-deployment",
    "sub-etl-job/sub-etl-deployment",
    "final-etl-job/final-etl-deployment",
    "process-table-etl/process-table-etl-deployment",
    "cleanup-flow-1/cleanup-flow-1-deployment",
    "cleanup-flow-2/cleanup-flow-2-deployment",
}


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer, worker: Worker) -> Iterator[Worker]:
    """All deployments of prefect.yaml, made by Prefect's own command."""
    subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
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
    assert names == {path.partition("/")[2] for path in DECLARED}


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
