"""A real Prefect server, and a real process worker, for the whole test session.

Both are processes of their own group with their own PREFECT_HOME, and are ended by their ids: nothing else on the
machine is touched.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, PREFECT_HOME, temporary_settings

from orchestrator.model import Owner

from .api import Api, unique
from .engine import engine, engine_environment, own_images, registry  # noqa: F401  fixtures
from .gitops import OTHER_POOL, POOL, TEMPLATE, Repository
from .shops import events_sent, known_schemas, local_shop, shop  # noqa: F401  fixtures

ROOT = Path(__file__).parents[2]
WORKER_POOL = "test-pool"
DATABASE = "prefect.db"  # in PREFECT_HOME
START_SECONDS = 120  # far more than it takes: a slow machine is no failure
TEST_SECONDS = 240  # the same, of the tests that use `no_hanging`


@dataclass(frozen=True, kw_only=True)
class PrefectServer:
    """A running server, and the environment in which a process belongs to it."""

    api_url: str
    environment: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A running process worker, and the databases that its flow runs use."""

    pool: str
    source_url: str
    target_url: str


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with Prefect's tables and nothing in it. To make them takes 12 s of CPU, longer than all else that a
    server does when it starts: once for all processes of this test run."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    file = shared / "empty" / DATABASE
    with (shared / "empty.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            making = shared / "making"
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            subprocess.run(command, env=clean_environment(making), check=True, capture_output=True)
            making.rename(file.parent)
    return file


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[PrefectServer]:
    """A Prefect server on a free loopback port, which this process's clients use too."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    shutil.copy(empty_database, home)
    api_url = f"http://127.0.0.1:{port}/api"
    environment = {
        **clean_environment(home),
        "PREFECT_API_URL": api_url,
        # Marking the idle runs of other tests as late competes for SQLite's lock, and Prefect's event loop can then
        # stop for 60 s: its garbage collection waits for a cursor whose connection waits for that lock.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_SERVER_TASKS_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "1",  # not 10, until a task asks again
    }
    command = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (
        prefect_process(command, environment, home / "server.log", ready=lambda: is_healthy(api_url)),
        # The server may stand still for 60 s, see above: no request is given up, and sent again, because of that.
        temporary_settings({PREFECT_API_URL: api_url, PREFECT_HOME: home, PREFECT_API_REQUEST_TIMEOUT: 180}),
    ):
        yield PrefectServer(api_url=api_url, environment=environment)


@pytest.fixture(scope="session")
def api(prefect_server: PrefectServer) -> Api:
    """The server's raw API."""
    return Api(prefect_server.api_url)


@pytest.fixture
async def no_hanging() -> AsyncIterator[None]:
    """A fixture is a task of its own, so its own timeout would not reach the test's."""
    end = asyncio.get_running_loop().call_later(TEST_SECONDS, cancel_all_tasks)
    yield
    end.cancel()


def cancel_all_tasks() -> None:
    for task in asyncio.all_tasks():
        task.cancel(f"The test took longer than {TEST_SECONDS} s.")


@pytest.fixture
def repository(api: Api) -> Iterator[Repository]:
    """A project of its own, and the pools that its deployments name."""
    for name in (POOL, OTHER_POOL):
        api.ensure_pool(name, template=TEMPLATE)
    project = unique("shop")
    yield Repository(Owner(project=project, environment="development"), f"{project}-etl", api.url)
    api.delete_deployments_of(f"{project}-etl")  # their schedules would keep the server busy


@pytest.fixture(scope="session")
def worker(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A process worker whose flow runs keep their databases in a temporary folder."""
    folder = tmp_path_factory.mktemp("worker")
    result = Worker(
        pool=WORKER_POOL,
        source_url=f"sqlite:///{folder / 'source.db'}",
        target_url=f"sqlite:///{folder / 'target.db'}",
    )
    environment = {
        **prefect_server.environment,
        "DATABASE_URL": result.source_url,
        "TARGET_DATABASE_URL": result.target_url,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    # More at once only makes each slower on a small machine, and a chain of waiting parents needs three.
    command = ["worker", "start", "--pool", WORKER_POOL, "--type", "process", "--limit", "4"]
    ready = lambda: has_online_worker(prefect_server.api_url)  # noqa: E731
    with prefect_process(command, environment, folder / "worker.log", ready=ready):
        yield result


def clean_environment(home: Path) -> dict[str, str]:
    """Our own without what is set for Prefect, for processes of Prefect that have a home of their own."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def prefect_process(
    command: list[str], environment: dict[str, str], log: Path, *, ready: Callable[[], bool]
) -> Iterator[None]:
    """Run `prefect COMMAND` in its own process group, from when it is ready until the end of the block."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(process, ready, log)
        yield
    finally:
        stop(process)


def wait_until_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args} did not become ready:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_number)
            process.wait(timeout=20)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_healthy(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=5, verify=False).is_success
    except httpx.TransportError:
        return False


def has_online_worker(api_url: str) -> bool:
    response = httpx.post(f"{api_url}/work_pools/{WORKER_POOL}/workers/filter", json={}, timeout=5, verify=False)
    return response.is_success and any(worker["status"] == "ONLINE" for worker in response.json())
