"""Clone, one command: every flow deployed, the deployer among them, and the ETL has run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.system.conftest import Answer, System

DATABASE_LIMIT = 3
ETL = "main-etl-job/main-etl-deployment"


def test_it_shows_each_step_and_the_way_to_the_ui(first_bootstrap: tuple[System, Answer]) -> None:
    system, answer = first_bootstrap

    assert answer.code == 0, answer.text
    for step in ("server", "pools and limits", "worker", "deployer", "sync", "run"):
        assert f"+ {step} " in answer.out
    assert "environment development" in answer.out
    assert ".orchestrator/logs/server-" in answer.out
    assert f"Prefect UI: {system.api_url.removesuffix('/api')}" in answer.out


def test_it_leaves_the_persons_own_prefect_alone(system: System) -> None:
    home = Path(system.environment["HOME"])

    assert not (home / ".prefect").exists()
    assert (system.root / ".orchestrator" / "prefect" / "prefect.db").exists()


def test_every_flow_is_deployed_and_the_deployer_too(system: System) -> None:
    flows = {flow["name"] for flow in system.run("discover", "--output", "json").document["flows"]}

    deployed = {path.partition("/")[0] for path in system.deployments()}

    assert deployed == flows | {"deploy-everything"}


def test_the_first_sync_ran_on_the_worker_and_is_named_after_its_outcome(system: System) -> None:
    runs = system.post("/flow_runs/filter", flows={"name": {"any_": ["deploy-everything"]}}, sort="START_TIME_ASC")

    first = next(run for run in runs if run["start_time"])
    assert first["name"] == "development: +17 ~0 -0"
    assert first["state_name"] == "Completed"
    assert first["work_pool_name"] == "development-process-pool"
    assert first["infrastructure_pid"]


def test_the_sync_is_made_of_tasks_and_leaves_a_plan_and_a_result(system: System) -> None:
    tasks = system.post("/task_runs/filter", flows={"name": {"any_": ["deploy-everything"]}})
    artifacts = system.post("/artifacts/filter")

    stages = {"Discover flows", "Validate", "Plan", "Apply"}
    assert stages <= {task["name"].rpartition("-")[0] for task in tasks}
    assert {"plan-development", "deployments-development"} <= {artifact["key"] for artifact in artifacts}


def test_the_etl_and_all_its_children_completed_and_are_linked(system: System) -> None:
    main = runs_of(system, "main-etl-job")[0]
    children = children_of(system, main["id"])
    tables = [run for child in children for run in children_of(system, child["id"])]

    assert main["state_type"] == "COMPLETED"
    assert {child["state_type"] for child in (*children, *tables)} == {"COMPLETED"}
    assert len(children) == 3
    assert len(tables) == 20 + 2  # and two cleanups


def test_never_more_database_tasks_at_a_time_than_the_limit(system: System) -> None:
    tasks = system.post("/task_runs/filter", task_runs={"tags": {"all_": ["database"]}})
    spans = [span for task in tasks for span in running_spans(system, task["id"])]

    assert len(spans) >= 20
    assert most_at_once(spans) <= DATABASE_LIMIT


def test_every_table_arrived_with_the_right_number_of_rows(system: System) -> None:
    source, target = (sqlite3.connect(system.root / "data" / name) for name in ("source.db", "target.db"))
    loads = target.execute(
        "select table_number, extracted, missing + negative + duplicates, loaded from loads"
    ).fetchall()

    assert sorted(number for number, *_ in loads) == list(range(20))
    for number, extracted, dropped, loaded in loads:
        assert source.execute(f"select count(*) from table_{number:02}").fetchone() == (extracted,)
        assert target.execute("select count(*) from sales where table_number = ?", (number,)).fetchone() == (loaded,)
        assert loaded == extracted - dropped


def runs_of(system: System, flow: str) -> list[dict[str, Any]]:
    return system.post("/flow_runs/filter", flows={"name": {"any_": [flow]}}, sort="START_TIME_ASC")


def children_of(system: System, run_id: str) -> list[dict[str, Any]]:
    return system.post("/flow_runs/filter", flow_runs={"parent_flow_run_id": {"any_": [run_id]}})


def running_spans(system: System, task_run_id: str) -> Iterator[tuple[str, str]]:
    """When a task was Running, from each Running state to the next state."""
    states = sorted(system.get(f"/task_run_states/?task_run_id={task_run_id}"), key=lambda state: state["timestamp"])
    for state, following in pairwise(states):
        if state["type"] == "RUNNING":
            yield state["timestamp"], following["timestamp"]


def most_at_once(spans: list[tuple[str, str]]) -> int:
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)
