"""What docker/compose.yaml describes, run on this machine without containers, and the whole way on top of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import compose
from benchmarks.servers import NotAvailable
from tests.system.conftest import System, clean_environment, clone, wait_until

PATTERN = "pattern-parallel/development-python"
CHILDREN = 3
VARIABLES = {
    **compose.VARIABLES,
    "PROCESS_POOL": "development-process-pool",
    "PROCESS_LIMIT": "1",  # the parent takes the place of one worker: its children have only the other one's
}


@pytest.fixture
def scaled_out(tmp_path: Path) -> Iterator[System]:
    """A clone with the .venv of this test run, and all of compose.yaml but its docker worker, with two others."""
    root, home = tmp_path / "project", tmp_path / "home"
    home.mkdir()
    root.mkdir()
    clone(root)
    (root / ".venv").symlink_to(sys.prefix)
    often = {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    try:
        with compose.composed(tmp_path / "compose", VARIABLES, workers=2, settings=often) as server:
            credentials = {"PREFECT_API_AUTH_STRING": VARIABLES["PREFECT_API_AUTH_STRING"]}
            environment = {**clean_environment(home), **credentials}
            yield System(root=root, api_url=server.url_with_credentials, environment=environment)
    except NotAvailable as reason:
        if os.environ.get("REQUIRE_REDIS") == "1":
            raise
        pytest.skip(str(reason))


def test_bootstrap_and_a_fan_out_on_postgres_redis_separate_services_and_two_workers(scaled_out: System) -> None:
    without_password = f"http://{scaled_out.api_url.rpartition('@')[2]}"

    bootstrap = scaled_out.run("bootstrap", "--output", "json", at=without_password)
    assert bootstrap.code == 0, bootstrap.text
    outcomes = {step["name"]: step["outcome"] for step in bootstrap.document["steps"]}
    assert outcomes["server"] == "answers; not started by us"
    assert outcomes["worker"].count("ProcessWorker") == 2

    run = scaled_out.run("run", PATTERN, "--parameter", f"items={CHILDREN}", at=without_password)
    assert run.code == 0, run.text
    children = runs(scaled_out, "work-item")
    assert list(children.values()) == ["Completed"] * CHILDREN

    # Events come through Redis, and it is the services that write them to Postgres.
    (parent,) = runs(scaled_out, "pattern-parallel")
    workers = wait_until(lambda: workers_of(scaled_out, {parent, *children}))
    assert len({workers[child] for child in children}) == 1
    assert workers[parent] not in {workers[child] for child in children}


def runs(system: System, flow: str) -> dict[str, str]:
    """The state of each run of a flow, by the run's id."""
    found = system.post("/flow_runs/filter", flows={"name": {"any_": [flow]}})
    return {run["id"]: run["state_name"] for run in found}


def workers_of(system: System, run_ids: set[str]) -> dict[str, str] | None:
    """Which worker has taken up each run, as soon as the server knows that of all of them."""
    taken_up = {"event": {"name": ["prefect.worker.submitted-flow-run"]}}
    events = system.post("/events/filter", filter=taken_up)["events"]
    workers = {
        related["prefect.resource.id"].rpartition(".")[2]: event["resource"]["prefect.resource.id"]
        for event in events
        for related in event["related"]
        if related["prefect.resource.role"] == "flow-run"
    }
    return workers if run_ids <= set(workers) else None
