"""The background processes: what bootstrap starts, what it refuses, what `down` stops, and Ctrl-C in between."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.system.conftest import LONG_SECONDS, System, clean_environment, clone, free_port


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[System]:
    """A clone where nothing was started yet, with the .venv of this test run."""
    root, home = tmp_path / "project", tmp_path / "home"
    root.mkdir()
    home.mkdir()
    clone(root)
    (root / ".venv").symlink_to(sys.prefix)
    made = System(root=root, api_url=f"http://127.0.0.1:{free_port()}/api", environment=clean_environment(home))
    yield made
    made.run("down")


def processes(system: System) -> dict[str, psutil.Process]:
    """What the clone's state folder records, by role."""
    records = [json.loads(path.read_text()) for path in (system.root / ".orchestrator" / "run").glob("*.json")]
    return {record["role"]: psutil.Process(record["pid"]) for record in records}


def start_bootstrap(system: System) -> subprocess.Popen[str]:
    """Bootstrap in the background, its output line by line."""
    command = [str(system.root / ".venv/bin/python"), "-u", "-m", "orchestrator", "bootstrap"]
    return subprocess.Popen(
        [*command, "--api-url", system.api_url],
        cwd=system.root,
        env=system.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def interrupt_when(process: subprocess.Popen[str], happened: str) -> str:
    """Press Ctrl-C once a line shows that something happened; returns all output."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if happened in line:
            process.send_signal(signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=LONG_SECONDS)
    return "".join(seen) + rest


def test_ctrl_c_while_the_server_starts_leaves_nothing(fresh: System) -> None:
    process = start_bootstrap(fresh)

    output = interrupt_when(process, "= address")

    assert process.returncode == 130
    assert "running now: nothing" in output
    assert processes(fresh) == {}
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{fresh.api_url}/health")


def test_ctrl_c_later_says_what_runs_and_down_stops_exactly_that(fresh: System) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = start_bootstrap(fresh)

    output = interrupt_when(process, "+ pools and limits")
    started = processes(fresh)
    down = fresh.run("down")
    again = fresh.run("down")

    assert "running now: server (pid" in output
    assert "orchestrator down" in output
    assert "server" in started
    assert not any(each.is_running() for each in started.values())
    assert "stopped server" in down.out
    assert "nothing of ours is running" in again.out
    assert bystander.poll() is None
    bystander.communicate(b"\n")


def test_ctrl_c_during_the_sync_names_the_run_that_goes_on(fresh: System) -> None:
    process = start_bootstrap(fresh)

    output = interrupt_when(process, "/runs/flow-run/")

    assert process.returncode == 130
    assert f"The run goes on: {fresh.api_url.removesuffix('/api')}/runs/flow-run/" in output
    assert "running now: " in output and "worker (pid" in output


def test_a_repository_without_any_configuration_says_what_it_needs(fresh: System) -> None:
    empty = fresh.root.parent / "empty"
    empty.mkdir()

    bootstrap = fresh.run("bootstrap", "--root", str(empty))
    status = fresh.run("status", "--root", str(empty), at="")

    assert bootstrap.code == 2
    assert "environments/development.yaml" in bootstrap.text and "work_pools" in bootstrap.text
    assert status.code == 2
    assert "No Prefect server is named" in status.text
    assert not list(empty.glob(".orchestrator/run/*.json"))


def test_credentials_in_an_address_are_never_shown(fresh: System) -> None:
    secret = "hunter2secret"

    answers = [fresh.run(command, at=f"http://bob:{secret}@prefect.invalid/api") for command in ("bootstrap", "plan")]

    assert all(answer.code == 1 for answer in answers)
    assert not any(secret in answer.text for answer in answers)


def test_a_port_that_something_else_holds_is_named(fresh: System) -> None:
    with listening() as port:
        answer = fresh.run("bootstrap", at=f"http://127.0.0.1:{port}/api")

    assert answer.code == 1
    assert f"127.0.0.1:{port}" in answer.text
    assert f"pid {psutil.Process().pid}" in answer.text
    assert processes(fresh) == {}


def test_a_remote_server_that_does_not_answer_says_what_to_check(fresh: System) -> None:
    answer = fresh.run("bootstrap", "--env", "staging", at="http://prefect.invalid:4200/api")

    assert answer.code == 1
    assert "prefect.invalid" in answer.text
    assert "Check that it runs" in answer.text
    assert processes(fresh) == {}


def test_a_server_that_cannot_start_points_to_its_log(fresh: System) -> None:
    home = fresh.root / ".orchestrator" / "prefect"
    home.mkdir(parents=True)
    (home / "prefect.db").write_text("this is no database, but a text that is long enough to be taken for one" * 20)

    answer = fresh.run("bootstrap")

    assert answer.code == 1
    assert ".orchestrator/logs/server-" in answer.text
    assert processes(fresh) == {}


def test_errors_are_json_where_json_was_asked_for(fresh: System) -> None:
    answer = fresh.run("bootstrap", "--env", "nowhere", "--output", "json")

    assert answer.code == 2
    assert answer.document["error"]["faults"][0]["code"] == "CFG004"


@contextmanager
def listening() -> Iterator[int]:
    """Something on a loopback port that takes connections and never answers as Prefect does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hang_up, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]


def hang_up(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.close()
