"""What people do next on a running system, and what they do wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.conftest import System, wait_until

DEPLOYER = "deploy-everything/development"
TABLE_FLOW = "flows/process_table_etl.py"
ETL = "main-etl-job/main-etl-deployment"


def sync(system: System, mode: str = "apply") -> dict[str, Any]:
    """Run the deployer through the API, on the worker, as the UI does; returns the ended run."""
    deployment = system.deployments()[DEPLOYER]
    run = system.post(f"/deployments/{deployment['id']}/create_flow_run", parameters={"mode": mode})
    return wait_until(lambda: system.ended_run(run["id"]))


def test_a_second_bootstrap_changes_nothing(system: System) -> None:
    before, runs = system.stamps(), system.post("/flow_runs/count")

    answer = system.run("bootstrap", "--run", ETL, "--output", "json")

    assert answer.code == 0, answer.text
    assert not any(step["changed"] for step in answer.document["steps"])
    assert system.stamps() == before
    assert system.post("/flow_runs/count") == runs


def test_a_changed_default_updates_exactly_one_deployment(system: System) -> None:
    before = system.stamps()

    with system.edited("flows/sub_etl.py", "] = 20", "] = 7"):
        run = sync(system)
        changed = {path for path, stamp in system.stamps().items() if before.get(path) != stamp}
        schema = system.deployments()["sub-etl-job/sub-etl-deployment"]["parameter_openapi_schema"]
    sync(system)

    assert run["name"] == "development: +0 ~1 -0"
    assert run["state_name"] == "Completed"
    assert changed == {"sub-etl-job/sub-etl-deployment"}
    assert schema["properties"]["tables"]["default"] == 7


def test_a_quick_run_only_plans(system: System) -> None:
    before = system.stamps()

    with system.edited("flows/sub_etl.py", "] = 20", "] = 9"):
        run = sync(system, "plan")

    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "ChangesPending")
    assert run["name"] == "development: +0 ~1 -0"
    assert system.stamps() == before


def test_a_sync_with_nothing_to_do_says_so(system: System) -> None:
    run = sync(system)

    assert (run["state_name"], run["name"]) == ("NoChanges", "development: +0 ~0 -0")


def test_a_removed_flow_is_deleted_and_a_new_one_deployed(system: System) -> None:
    flow = "from prefect import flow\n\n\n@flow\ndef visitor() -> None:\n    '''Came and went.'''\n"
    with system.edited("flows/visitor.py", "", flow):
        added = system.run("apply", "--yes", "--output", "json")
        there = "visitor/development-python" in system.deployments()
    removed = system.run("apply", "--yes", "--output", "json")

    assert (added.document["summary"]["create"], there) == (1, True)
    assert removed.document["summary"]["delete"] == 1
    assert "visitor/development-python" not in system.deployments()


def test_a_paused_deployment_and_a_switched_off_schedule_stay_as_people_left_them(system: System) -> None:
    row = system.deployments()[DEPLOYER]
    etl = system.deployments()[ETL]
    system.post(f"/deployments/{etl['id']}/pause_deployment")
    schedule = row["schedules"][0]["id"]
    system.patch(f"/deployments/{row['id']}/schedules/{schedule}", active=False)

    with system.edited("flows/main_etl.py", "] = 20", "] = 19"):
        answer = system.run("apply", "--yes", "--output", "json")
    after = system.deployments()
    system.post(f"/deployments/{etl['id']}/resume_deployment")
    system.patch(f"/deployments/{row['id']}/schedules/{schedule}", active=True)
    system.run("apply", "--yes")

    # Two: the server empties a schedule's parameters when somebody switches it off, and they are set again.
    assert answer.document["summary"]["update"] == 2
    assert after[DEPLOYER]["schedules"][0]["parameters"] == {"mode": "plan"}
    assert after[ETL]["paused"] is True
    assert after[DEPLOYER]["schedules"][0]["active"] is False


def test_a_changed_queue_stays_in_its_pool(system: System) -> None:
    with system.edited("prefect.yaml", "work_queue_name: tables", "work_queue_name: default"):
        system.run("apply", "--yes")
        moved = system.deployments()["process-table-etl/process-table-etl-deployment"]
    system.run("apply", "--yes")
    back = system.deployments()["process-table-etl/process-table-etl-deployment"]

    assert (moved["work_pool_name"], moved["work_queue_name"]) == ("development-process-pool", "default")
    assert (back["work_pool_name"], back["work_queue_name"]) == ("development-process-pool", "tables")


def test_status_is_good_and_says_what_is_not(system: System) -> None:
    good = system.run("status", "--output", "json")
    with system.edited("flows/sub_etl.py", "] = 20", "] = 6"):
        bad = system.run("status", "--output", "json")

    assert (good.code, bad.code) == (0, 1)
    assert all(item["in_sync"] and item["ready"] for item in good.document["deployments"])
    assert [item["deployment"] for item in bad.document["deployments"] if not item["in_sync"]] == [
        "sub-etl-job/sub-etl-deployment"
    ]


# ---------------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------------


def test_a_syntax_error_takes_out_its_file_and_nothing_else(system: System) -> None:
    before = system.stamps()
    with system.edited(TABLE_FLOW, "", "\ndef broken(:\n"), system.edited("flows/sub_etl.py", "] = 20", "] = 8"):
        answer = system.run("apply", "--yes")
        run = sync(system)
        after = system.stamps()
    system.run("apply", "--yes")

    assert answer.code == 4
    assert f"{TABLE_FLOW}:" in answer.text and "FLW001" in answer.text
    assert run["state_name"] == "Degraded"
    assert "FLW001" in run["state"]["message"]
    assert {path for path in before if after.get(path) != before[path]} == {"sub-etl-job/sub-etl-deployment"}


BAD_INPUT = {
    "an environment that does not exist": (
        ("environments/x.yaml", "", ""),
        ["--env", "devlopment"],
        ["environments/devlopment.yaml", "'development'"],
    ),
    "an unknown key in an environment file": (
        ("environments/development.yaml", "deployer:", "depolyer:"),
        [],
        ["environments/development.yaml:", "CFG002", "'depolyer'", "'deployer'"],
    ),
    "a wrong type": (
        ("environments/base.yaml", "database: 3", "database: three"),
        [],
        ["environments/base.yaml:", "CFG003", "concurrency_limits.database"],
    ),
    "two flows with one name": (
        ("flows/cleanup_flow_2.py", 'name="cleanup-flow-2"', 'name="cleanup-flow-1"'),
        [],
        ["flows/cleanup_flow_2.py:", "flows/cleanup_flow_1.py:", "FLW003"],
    ),
    "a misspelt key in prefect.yaml": (
        ("prefect.yaml", "entrypoint: flows/main_etl.py", "entrypiont: flows/main_etl.py"),
        [],
        ["prefect.yaml:", "CFG002", "entrypiont"],
    ),
    "a declared flow that is not there": (
        ("prefect.yaml", "flows/main_etl.py:main_etl", "flows/main_etl.py:mian_etl"),
        [],
        ["prefect.yaml:", "DPL001", "main_etl"],
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
@pytest.mark.parametrize("command", [["apply", "--yes"], ["bootstrap"]])
def test_bad_input_is_named_with_its_place_and_changes_nothing(system: System, case: str, command: list[str]) -> None:
    (file, old, new), arguments, words = BAD_INPUT[case]
    before = system.stamps()

    with system.edited(file, old, new):
        answer = system.run(*command, *arguments)

    assert answer.code == 2, answer.text
    for word in words:
        assert word in answer.text
    assert system.stamps() == before


def test_the_deployer_says_what_is_wrong_in_its_state(system: System) -> None:
    with system.edited("environments/development.yaml", "deployer:", "depolyer:"):
        run = sync(system)

    assert (run["state_type"], run["state_name"]) == ("FAILED", "Invalid")
    assert "environments/development.yaml:" in run["state"]["message"]


def test_a_pool_of_another_type_under_the_same_name_is_not_touched(system: System) -> None:
    system.post("/work_pools/", name="taken", type="docker")

    with system.edited("environments/development.yaml", "development-process-pool", "taken"):
        answer = system.run("bootstrap")

    assert answer.code == 2
    assert "'taken'" in answer.text and "'docker'" in answer.text and "'process'" in answer.text
    assert system.get("/work_pools/taken")["type"] == "docker"


def test_a_declared_limit_that_a_person_changed_is_set_back_and_said(system: System) -> None:
    system.patch("/work_pools/development-process-pool", concurrency_limit=11)

    answer = system.run("bootstrap")

    assert answer.code == 0, answer.text
    assert "concurrency limit 11 → 10" in answer.out
    assert system.get("/work_pools/development-process-pool")["concurrency_limit"] == 10


def test_another_server_in_the_shell_must_be_settled(system: System) -> None:
    answer = System(
        root=system.root,
        api_url=system.api_url,
        environment={**system.environment, "PREFECT_API_URL": "http://127.0.0.1:1/api"},
    ).make("deploy-all", "API_URL=")

    assert answer.code == 2
    assert "PREFECT_API_URL" in answer.text and "--api-url" in answer.text


def test_a_reviewed_plan_is_applied_exactly_or_refused(system: System) -> None:
    file = str(system.root.parent / "plan.json")
    with system.edited("flows/sub_etl.py", "] = 20", "] = 5"):
        planned = system.run("plan", "--detailed-exitcode", "--out", file)
        with system.edited("flows/main_etl.py", "] = 20", "] = 4"):
            moved = system.run("apply", "--plan", file)
        before = system.stamps()
        applied = system.run("apply", "--plan", file, "--output", "json")
        after = system.stamps()
    system.run("apply", "--yes")

    assert (planned.code, moved.code, applied.code) == (3, 5, 0)
    assert "has moved since" in moved.text and "nothing then, update now" in moved.text
    assert [path for path in before if after[path] != before[path]] == ["sub-etl-job/sub-etl-deployment"]


def test_nobody_to_ask_means_no(system: System) -> None:
    before = system.stamps()
    with system.edited("flows/sub_etl.py", "] = 20", "] = 3"):
        answer = system.run("apply")

    assert answer.code == 5
    assert "--yes" in answer.text
    assert system.stamps() == before


@pytest.mark.parametrize(("written", "said"), [("tabels=2", "Did you mean 'tables'?"), ("tables", "name=value")])
def test_a_wrong_parameter_is_named_before_anything_runs(system: System, written: str, said: str) -> None:
    before = system.post("/flow_runs/count")

    answer = system.run("run", ETL, "--parameter", written)

    assert answer.code == 2
    assert said in answer.text
    assert system.post("/flow_runs/count") == before


def test_status_is_not_good_while_a_flow_file_cannot_be_read(system: System) -> None:
    with system.edited("flows/broken.py", "", "from prefect import flow\n\n\n@flow\ndef broken(:\n"):
        answer = system.run("status")

    assert answer.code == 1
    assert "flows/broken.py:5" in answer.text
