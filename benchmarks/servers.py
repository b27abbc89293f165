"""Prefect servers that a benchmark starts for itself, on SQLite or on a Postgres of its own, and the CPU they take."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import psutil
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from benchmarks.deploy import POOL, free_port, is_healthy, send

POSTGRES_USER = "postgres"  # root may not run Postgres; this account may
SAMPLE_SECONDS = 2.0
START_SECONDS = 120.0
QUIET = 0.1  # of a processor: what a server may take above its idle self and still count as idle


class NotAvailable(Exception):
    """There is no Postgres to be had here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server: its address, and the processes that do its work (its database's among them)."""

    api_url: str
    environment: Mapping[str, str]  # of processes that talk to it
    processes: Sequence[psutil.Process]

    def cpu_seconds(self) -> float:
        """What it has used since it was started, with all its children."""
        return sum(tree_cpu_seconds(process) for process in self.processes)

    def cpu_rate(self, seconds: float = SAMPLE_SECONDS) -> float:
        """The processors that it uses at the moment: 1.0 is one of them, fully."""
        before, started = self.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu_seconds() - before) / (time.monotonic() - started)

    def settle(self, idle_rate: float = 0.0) -> None:
        """Wait until it has nothing more to do than an idle server has."""
        while self.cpu_rate() > idle_rate + QUIET:
            pass

    @property
    def url_with_credentials(self) -> str:
        """The API's address for clients that know nothing of Prefect's settings."""
        user, _, password = self.environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
        scheme, _, rest = self.api_url.partition("://")
        return f"{scheme}://{quote(user, '')}:{quote(password, '')}@{rest}" if user else self.api_url

    def client(self) -> httpx.Client:
        """A client without kept connections: the server closes idle ones when it likes."""
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.Client(base_url=self.url_with_credentials, timeout=120, limits=limits)


def create_deployment(on: Server, path: str, **fields: Any) -> None:
    """A deployment for a pool of type process with Prefect's own template, both new."""
    flow, _, name = path.partition("/")
    template = anyio.run(get_default_base_job_template_for_infrastructure_type, "process")
    pool = {"name": POOL, "type": "process", "base_job_template": template}
    with on.client() as client:
        send(client, "POST", "/work_pools/", pool)
        flow_id = send(client, "POST", "/flows/", {"name": flow})["id"]
        body = {"name": name, "flow_id": flow_id, "work_pool_name": POOL, "enforce_parameter_schema": True, **fields}
        send(client, "POST", "/deployments/", body)


def tree_cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process and its descendants, those that have ended included."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += sum(member.cpu_times()[:4])  # own user and system, and those of children that have ended
    return total


@contextmanager
def server(folder: Path, database: str) -> Iterator[Server]:
    """A fresh server on "sqlite" or "postgres", stopped at the end with all that belongs to it.

    Raises:
        NotAvailable: there is no Postgres here.
    """
    folder.mkdir(parents=True)
    if database == "sqlite":
        with prefect_server(folder, {}, ()) as started:
            yield started
        return
    connection = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
    with postgres() as (url, process), prefect_server(folder, {connection: url}, (process,)) as started:
        yield started


@contextmanager
def prefect_server(folder: Path, settings: Mapping[str, str], database: Sequence[psutil.Process]) -> Iterator[Server]:
    """`prefect server start`, until the end of the block.

    It does not mark runs as Late: here nobody takes them up, and a thousand such writes would fall now into one
    phase, now into another.
    """
    port = free_port()
    api_url = f"http://127.0.0.1:{port}/api"
    environment = clean_environment(folder)
    lateness = {"PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running([*command, "--no-ui"], folder / "server.log", {**environment, **settings, **lateness}) as process:
        await_server(api_url, process, folder / "server.log")
        environment["PREFECT_API_URL"] = api_url
        yield Server(api_url=api_url, environment=environment, processes=(process, *database))


def clean_environment(folder: Path) -> dict[str, str]:
    """The caller's, without settings of Prefect's; its home lies in the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    quiet = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    return {**kept, **quiet, "PREFECT_HOME": str(folder / "prefect"), "NO_COLOR": "1"}


@contextmanager
def running(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """A process in the background, ended with its children at the end of the block."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, env=dict(environment), cwd=log.parent, stdout=output, stderr=output, start_new_session=True
        )
    process = psutil.Process(child.pid)
    try:
        yield process
    finally:
        end(process)
        child.wait()


def end(process: psutil.Process, grace_seconds: float = 10.0) -> None:
    """End a process that we started, and what it leaves of its children."""
    with suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        process.terminate()
        psutil.wait_procs([process], timeout=grace_seconds)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family[1:], timeout=grace_seconds)


def await_server(api_url: str, process: psutil.Process, log: Path) -> None:
    """Wait until it answers; one that ends or never answers ends the benchmark."""
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(api_url):
        ended = not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        if ended or time.monotonic() > deadline:
            raise SystemExit(f"the server did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")
        time.sleep(0.2)


# ---------------------------------------------------------------------------------------------------------
# Postgres
# ---------------------------------------------------------------------------------------------------------


@contextmanager
def postgres() -> Iterator[tuple[str, psutil.Process]]:
    """A Postgres with an empty database, its address for Prefect, and its main process.

    Its settings are Postgres' own; it listens on a free loopback port, and its data are gone afterwards.

    Raises:
        NotAvailable: it is not installed, or may not be run here.
    """
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-postgres-"))  # not below ours: its account may not look there
    try:
        account = postgres_account()
        if account:
            shutil.chown(folder, account)
        initialise(folder / "data", account)
        port = free_port()
        with postmaster(folder, port, account) as process:
            yield f"postgresql+asyncpg://{POSTGRES_USER}@127.0.0.1:{port}/postgres", process
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def postgres_account() -> str | None:
    """Whom to run it as: ourselves, or another one where we are root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(POSTGRES_USER).pw_name
    except KeyError:
        raise NotAvailable(f"root may not run it, and there is no account {POSTGRES_USER!r}") from None


def initialise(data: Path, account: str | None) -> None:
    command = [binary("initdb"), "-D", str(data), "-U", POSTGRES_USER, "-A", "trust", "-E", "UTF8", "--no-locale"]
    done = subprocess.run(command, user=account, group=account, cwd=data.parent, capture_output=True, text=True)
    if done.returncode:
        raise NotAvailable(f"initdb failed: {done.stderr.strip()}")


def binary(name: str) -> str:
    """Where a program of Postgres lies; Debian keeps them off the path."""
    found = shutil.which(name)
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if found is None and not versions:
        raise NotAvailable(f"{name} is not installed")
    return found or str(versions[-1])


@contextmanager
def postmaster(folder: Path, port: int, account: str | None) -> Iterator[psutil.Process]:
    """The main process, from when it takes connections to the end of the block."""
    command = [binary("postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", ""]
    log = folder / "postgres.log"
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, user=account, group=account, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        while "ready to accept connections" not in log.read_text(encoding="utf-8"):
            if child.poll() is not None:
                raise NotAvailable(f"it did not start: {log.read_text(encoding='utf-8').strip()}")
            time.sleep(0.1)
        yield psutil.Process(child.pid)
    finally:
        child.send_signal(signal.SIGINT)  # a fast shutdown: it does not wait for its clients
        child.wait()
