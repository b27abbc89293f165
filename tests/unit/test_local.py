"""Local processes: only what we started is ended, and none of the developer's own Prefect leaks in."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import LocalProcessError
from orchestrator.local import LocalProcess, LocalState, is_loopback, port_holder, worker_key
from tests.unit.builders import API_URL, write_files

SERVER = "here"
WORKER = worker_key("processes", API_URL)

# Stands where Prefect would: tells its environment and arguments, then ends at once or waits for a signal.
STAND_IN = """
    import json, os, pathlib, signal, sys
    pathlib.Path("told.json").write_text(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)}))
    print("started", flush=True)
    if "WAITS" in os.environ:
        signal.pause()
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalState]:
    """A repository beside which `python -m prefect` is the stand-in."""
    write_files(tmp_path, {"path/prefect.py": STAND_IN, "root/README.md": ""})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    state = LocalState(tmp_path / "root")
    yield state
    for left in state.processes():
        state.stop(left, grace_seconds=0.0)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is not ours."""
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield child
    child.kill()
    child.wait()


def record_of(child: subprocess.Popen[bytes], *, age: float = 0.0) -> LocalProcess:
    """A record that names this process, as if it had started `age` seconds earlier."""
    started_at = psutil.Process(child.pid).create_time() - age
    return LocalProcess(
        role="server", serves=SERVER, name=API_URL, pid=child.pid, started_at=started_at, log="server.log"
    )


def write_record(state: LocalState, record: LocalProcess) -> None:
    write_files(state.folder, {f"run/{record.role}-{record.serves}.json": json.dumps(asdict(record))})


def started_worker(state: LocalState) -> LocalProcess:
    return state.start_worker(pool="processes", name="laptop", api_url=API_URL)


def told(state: LocalState, process: LocalProcess) -> dict[str, dict[str, str]]:
    """What the stand-in was given; it has ended by itself."""
    psutil.Process(process.pid).wait(timeout=30)
    found: dict[str, dict[str, str]] = json.loads((state.folder.parent / "told.json").read_text())
    return found


class TestStarting:
    def test_a_worker(self, state: LocalState) -> None:
        arguments = told(state, started_worker(state))["arguments"]
        assert arguments == ["worker", "start", "--pool", "processes", "--type", "process", "--name", "laptop"]

    def test_a_server_at_the_address(self, state: LocalState) -> None:
        arguments = told(state, state.start_server("http://localhost:4271/api"))["arguments"]
        assert arguments == ["server", "start", "--host", "localhost", "--port", "4271", "--analytics-off"]

    def test_writes_a_log_and_a_record(self, state: LocalState) -> None:
        process = started_worker(state)
        psutil.Process(process.pid).wait(timeout=30)
        assert Path(process.log).read_text() == "started\n"
        assert state.read("worker", WORKER) == process

    def test_keeps_its_folder_out_of_git(self, state: LocalState) -> None:
        told(state, started_worker(state))
        assert (state.folder / ".gitignore").read_text() == "*\n"

    def test_that_fails_says_where_to_look(self, state: LocalState, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/does/not/exist")
        with pytest.raises(LocalProcessError, match=r"The worker could not be started.*worker-.*\.log"):
            started_worker(state)
        assert state.read("worker", WORKER) is None


class TestEnvironmentOfChildren:
    @pytest.fixture
    def environment(self, state: LocalState, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql://theirs")
        monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql://theirs")
        monkeypatch.setenv("PREFECT_PROFILE", "theirs")
        monkeypatch.setenv("PREFECT_HOME", "/theirs")
        monkeypatch.setenv("PREFECT_API_URL", "http://theirs/api")
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:pass")
        monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "admin:pass")
        monkeypatch.setenv("DATABASE_URL", "sqlite:///shop.db")
        return told(state, started_worker(state))["environment"]

    def test_drops_the_developers_own_prefect(self, environment: dict[str, str]) -> None:
        assert [key for key, value in environment.items() if "theirs" in value] == []
        assert "PREFECT_PROFILE" not in environment

    def test_keeps_what_authenticates(self, environment: dict[str, str]) -> None:
        assert environment["PREFECT_API_AUTH_STRING"] == "admin:pass"
        assert environment["PREFECT_SERVER_API_AUTH_STRING"] == "admin:pass"

    def test_keeps_what_flows_need(self, environment: dict[str, str]) -> None:
        assert environment["DATABASE_URL"] == "sqlite:///shop.db"

    def test_has_our_own_home_and_address(self, environment: dict[str, str], state: LocalState) -> None:
        assert environment["PREFECT_HOME"] == str(state.prefect_home)
        assert environment["PREFECT_API_URL"] == API_URL


class TestRunning:
    def test_while_it_runs(self, state: LocalState, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WAITS", "1")
        process = started_worker(state)
        assert state.running("worker", WORKER) == process

    def test_not_after_it_has_ended(self, state: LocalState) -> None:
        process = started_worker(state)
        psutil.Process(process.pid).wait(timeout=30)
        assert state.running("worker", WORKER) is None
        assert state.read("worker", WORKER) == process

    def test_not_while_it_waits_to_be_buried(self, state: LocalState) -> None:
        process = started_worker(state)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, but is still in the process table
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
        assert state.running("worker", WORKER) is None

    def test_not_where_another_process_has_its_pid(self, state: LocalState, sleeper: subprocess.Popen[bytes]) -> None:
        write_record(state, record_of(sleeper, age=60))
        assert state.running("server", SERVER) is None

    @pytest.mark.parametrize("damage", ["", "{", "[]", '{"pid": 1}', "null"])
    def test_not_where_the_record_is_damaged(self, state: LocalState, damage: str) -> None:
        write_files(state.folder, {f"run/server-{SERVER}.json": damage})
        assert state.running("server", SERVER) is None

    def test_not_where_nothing_was_started(self, state: LocalState) -> None:
        assert state.read("server", SERVER) is None


class TestStopping:
    def test_ends_what_we_started_and_forgets_it(self, state: LocalState, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WAITS", "1")
        process = started_worker(state)
        assert state.stop(process) is True
        assert not psutil.pid_exists(process.pid)
        assert state.read("worker", WORKER) is None

    def test_leaves_another_process_with_the_same_pid_alone(
        self, state: LocalState, sleeper: subprocess.Popen[bytes]
    ) -> None:
        record = record_of(sleeper, age=60)
        write_record(state, record)
        assert state.stop(record) is False
        assert sleeper.poll() is None
        assert state.read("server", SERVER) is None

    def test_of_what_has_ended_only_forgets(self, state: LocalState) -> None:
        process = started_worker(state)
        psutil.Process(process.pid).wait(timeout=30)
        assert state.stop(process) is False
        assert state.read("worker", WORKER) is None

    def test_leaves_the_other_role_alone(self, state: LocalState, sleeper: subprocess.Popen[bytes]) -> None:
        write_record(state, record_of(sleeper))
        worker = started_worker(state)
        psutil.Process(worker.pid).wait(timeout=30)
        state.stop(worker)
        assert state.running("server", SERVER) == record_of(sleeper)

    def test_takes_the_children_along(self, state: LocalState) -> None:
        text = 'import subprocess, sys; c = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]); '
        parent = subprocess.Popen(
            [sys.executable, "-c", text + "print(c.pid, flush=True); c.wait()"], stdout=subprocess.PIPE
        )
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        state.stop(record_of(parent))
        parent.communicate()
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE

    def test_of_one_that_ignores_the_request_is_enforced(self, state: LocalState) -> None:
        text = (
            "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
        )
        stubborn = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
        assert stubborn.stdout is not None and stubborn.stdout.readline() == b"ready\n"
        assert state.stop(record_of(stubborn), grace_seconds=0.1) is True
        stubborn.communicate()
        assert not psutil.pid_exists(stubborn.pid)


class TestAddresses:
    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:4200/api", "http://localhost/api", "http://[::1]:1/api", "http://127.9.9.9"]
    )
    def test_of_this_machine(self, url: str) -> None:
        assert is_loopback(url)

    @pytest.mark.parametrize(
        "url", ["http://prefect:4200/api", "https://10.0.0.1/api", "http://localhost.example/api", ""]
    )
    def test_of_others(self, url: str) -> None:
        assert not is_loopback(url)

    def test_a_taken_port_has_a_holder(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            holder = port_holder(f"http://127.0.0.1:{server.getsockname()[1]}/api")
        assert holder is not None and f"pid {os.getpid()}" in holder

    def test_a_free_port_has_none(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        assert port_holder(f"http://127.0.0.1:{port}/api") is None


class TestOneProcessForEachPurpose:
    def test_workers_of_two_servers_are_recorded_apart(self, state: LocalState) -> None:
        started = [state.start_worker(pool="processes", name="w", api_url=f"http://127.0.0.1:{n}/api") for n in (1, 2)]
        assert set(state.processes()) == set(started)

    def test_workers_come_before_servers(self, state: LocalState) -> None:
        state.start_server("http://127.0.0.1:4271/api")
        started_worker(state)
        assert [process.role for process in state.processes()] == ["worker", "server"]

    def test_a_second_command_is_kept_out_while_one_is_at_work(self, state: LocalState) -> None:
        with (
            state.alone(),
            pytest.raises(LocalProcessError, match="Another bootstrap"),
            LocalState(state.folder.parent).alone(),
        ):
            pass

    def test_the_lock_ends_with_its_holder(self, state: LocalState) -> None:
        at_work = 0
        for _ in range(2):
            with state.alone():
                at_work += 1
        assert at_work == 2
