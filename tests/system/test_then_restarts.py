"""Stopped, killed, started again: bootstrap brings back what is missing, and nothing that died stands in the way."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from tests.system.conftest import System, wait_until
from tests.system.test_processes import processes
from tests.system.test_running_system import DEPLOYER, sync

# A flow whose import takes long keeps a sync at work for as long as a test needs.
SLOW_FLOW = "import time\n\ntime.sleep(300)\nfrom prefect import flow\n\n\n@flow\ndef slow() -> None:\n    pass\n"


def test_bootstrap_after_down_starts_server_and_worker_and_they_work(system: System) -> None:
    system.run("down")

    answer = system.run("bootstrap", "--output", "json")

    assert answer.code == 0, answer.text
    changed = {step["name"] for step in answer.document["steps"] if step["changed"]}
    assert {"server", "worker"} <= changed
    assert sync(system)["state_name"] == "NoChanges"


def test_a_sync_that_was_killed_does_not_stand_in_the_way_of_the_next(system: System) -> None:
    with system.edited("flows/slow.py", "", SLOW_FLOW):
        run = start_sync(system)
        kill_worker_and_run(system, run)

    answer = system.run("bootstrap", "--output", "json")

    assert answer.code == 0, answer.text
    assert system.get(f"/flow_runs/{run['id']}")["state_type"] == "CRASHED"
    assert any(run["name"] in step["outcome"] for step in answer.document["steps"])
    assert sync(system)["state_name"] == "NoChanges"


def test_a_killed_server_comes_back_with_everything_on_it(system: System) -> None:
    before = system.stamps()
    server = processes(system)["server"]
    server.kill()
    psutil.wait_procs([server], timeout=30)

    answer = system.run("bootstrap", "--output", "json")

    assert answer.code == 0, answer.text
    assert system.stamps() == before


def test_a_second_server_on_the_same_folder_is_refused(system: System) -> None:
    answer = system.run("bootstrap", at="http://127.0.0.1:9/api")

    assert answer.code == 1
    assert system.api_url in answer.text
    assert "orchestrator down" in answer.text


def start_sync(system: System) -> dict[str, Any]:
    """Start a sync and wait until it imports flows; returns the run."""
    deployment = system.deployments()[DEPLOYER]
    run = system.post(f"/deployments/{deployment['id']}/create_flow_run", parameters={"mode": "apply"})
    wait_until(lambda: is_importing(system) or None)
    return wait_until(lambda: running(system, run["id"]))


def running(system: System, run_id: str) -> dict[str, Any] | None:
    run = system.get(f"/flow_runs/{run_id}")
    return run if run["state_type"] == "RUNNING" and run["infrastructure_pid"] else None


def is_importing(system: System) -> bool:
    """Whether a child process of the clone imports flows."""
    everything = psutil.process_iter(["cmdline", "cwd"])
    children = [each.info for each in everything if "orchestrator.flow_child" in (each.info["cmdline"] or [])]
    return any(child["cwd"] == str(system.root) for child in children)


def kill_worker_and_run(system: System, run: dict[str, Any]) -> None:
    """What a power cut does: nobody gets to say anything."""
    worker = processes(system)["worker"]
    family = [worker, *worker.children(recursive=True)]
    pid = int(run["infrastructure_pid"].rpartition(":")[2])
    if psutil.pid_exists(pid):
        family += [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in family:
        if process.is_running():
            os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(family, timeout=30)


@pytest.fixture(autouse=True, scope="module")
def settled(system: System) -> None:
    """Nothing of an earlier test is left to sync."""
    system.run("apply", "--yes")
