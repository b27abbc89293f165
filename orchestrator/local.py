"""The local processes: Prefect's own server and a process worker, in the background, started and stopped by us.

Everything they leave lies in one git-ignored folder of the repository, `.orchestrator/`: Prefect's home with the
SQLite database, the logs, and a record of each process that we started. A process counts as ours only while the
recorded pid and its start time both still hold, so that a pid which the system gave to somebody else is never
touched.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

from orchestrator.errors import LocalProcessError

STATE_FOLDER = ".orchestrator"

# What a local server or worker takes over from the caller's Prefect settings. Anything else (a profile, a database
# address, another API) belongs to the developer's own Prefect and must not leak into ours.
_INHERITED_SETTINGS = (
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "PREFECT_API_TLS_",
    "PREFECT_API_SSL_",
    "PREFECT_CLIENT_",
    "PREFECT_LOGGING_",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_SERVER_SERVICES_",
    "PREFECT_WORKER_",
)


Role = Literal["server", "worker"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalProcess:
    """A background process that we started."""

    role: Role
    serves: str  # what it is there for: the server's host:port; the worker's pool@host:port. One process each
    name: str  # the server's API address; the worker's name on the server
    pid: int
    started_at: float  # seconds since the epoch, as the system tells it
    log: str

    def find(self) -> psutil.Process | None:
        """The running process, None where it has ended (or its pid belongs to another one by now)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_at) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class LocalState:
    """The folder `.orchestrator/` of one repository and the processes recorded in it."""

    def __init__(self, root: Path) -> None:
        self.folder = root / STATE_FOLDER
        self.prefect_home = self.folder / "prefect"

    def new_worker_name(self) -> str:
        """A name for the next worker of this folder, which `is_ours` recognises."""
        return f"{self._worker_prefix}{uuid.uuid4().hex[:6]}"

    def is_ours(self, worker_name: str) -> bool:
        """Whether a worker, running or long ended, was started from this folder."""
        return worker_name.startswith(self._worker_prefix)

    @property
    def _worker_prefix(self) -> str:
        return f"{socket.gethostname()}-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:6]}-"

    def processes(self) -> tuple[LocalProcess, ...]:
        """Every recorded process, running or not; workers before servers, since they report to them."""
        files = sorted((self.folder / "run").glob("*.json"), reverse=True)
        return tuple(process for process in map(_read_record, files) if process is not None)

    def read(self, role: Role, serves: str) -> LocalProcess | None:
        """The process recorded for that, running or not."""
        return _read_record(self._file("run", role, serves, "json"))

    def running(self, role: Role, serves: str) -> LocalProcess | None:
        """The process recorded for that, if it runs."""
        record = self.read(role, serves)
        return record if record is not None and record.find() is not None else None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other commands that start and stop processes here out, for the length of a block.

        Raises:
            LocalProcessError: another one is at work. The lock is the system's: it ends with its holder.
        """
        self._prepare()
        with (self.folder / "run" / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LocalProcessError(
                    "Another bootstrap or down is at work here.",
                    location=str(self.folder),
                    remedy="Wait until it is done.",
                ) from error
            yield

    def start_server(self, api_url: str) -> LocalProcess:
        """Start `prefect server start` at a loopback address; returns at once, before the server answers.

        Raises:
            LocalProcessError: the process could not be started.
        """
        address = urlsplit(api_url)
        command = ["prefect", "server", "start", "--host", address.hostname or "127.0.0.1"]
        command += ["--port", str(address.port or 80), "--analytics-off"]
        return self._start("server", server_key(api_url), api_url, command, {"PREFECT_API_URL": api_url})

    def start_worker(self, *, pool: str, name: str, api_url: str, type_: str = "process") -> LocalProcess:
        """Start `prefect worker start` on a pool; returns at once, before the worker is online.

        Args:
            pool: the work pool.
            name: of the worker.
            api_url: the server.
            type_: of the pool: process, or docker for containers of this machine's engine.

        Raises:
            LocalProcessError: the process could not be started.
        """
        command = ["prefect", "worker", "start", "--pool", pool, "--type", type_, "--name", name]
        # Prefect asks for new runs every 10 s; on one machine, people wait for that.
        settings = {"PREFECT_API_URL": api_url, "PREFECT_WORKER_QUERY_SECONDS": "2"}
        return self._start("worker", worker_key(pool, api_url), name, command, settings)

    def stop(self, process: LocalProcess, *, grace_seconds: float = 15.0) -> bool:
        """End a process of ours and forget it.

        A worker is asked twice: the first SIGTERM lets it finish what it reports, the second one ends it. Whatever is
        left of it and of its children is killed.

        Returns:
            True if it ran, False if it had ended before.
        """
        running = process.find()
        if running is not None:
            self._end(running, grace_seconds)
        self._file("run", process.role, process.serves, "json").unlink(missing_ok=True)
        return running is not None

    def _end(self, process: psutil.Process, grace_seconds: float) -> None:
        family = [process]
        with suppress(psutil.NoSuchProcess):  # it may end by itself at any moment
            family += process.children(recursive=True)
            for wait_seconds in (grace_seconds / 2, grace_seconds / 2):
                process.terminate()
                psutil.wait_procs([process], timeout=wait_seconds)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=5.0)

    def _start(
        self, role: Role, serves: str, name: str, command: list[str], settings: Mapping[str, str]
    ) -> LocalProcess:
        self._prepare()
        log = self._file("logs", role, serves, "log")
        try:
            child = self._launch(command, settings, log)
            started_at = psutil.Process(child.pid).create_time()
        except (OSError, psutil.Error) as error:
            raise LocalProcessError(f"The {role} could not be started: {error}.", remedy=f"See {log}.") from error
        process = LocalProcess(role=role, serves=serves, name=name, pid=child.pid, started_at=started_at, log=str(log))
        self._file("run", role, serves, "json").write_text(json.dumps(asdict(process)), encoding="utf-8")
        return process

    def _launch(self, command: list[str], settings: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", *command],  # -P: a prefect.py in the repository must not hide Prefect
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder.parent,
                env=self._environment(settings),
                start_new_session=True,  # Ctrl-C in the terminal must not reach it
                preexec_fn=_default_signals,
            )

    def _prepare(self) -> None:
        for folder in (self.prefect_home, self.folder / "logs", self.folder / "run"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")

    def _file(self, folder: str, role: Role, serves: str, ending: str) -> Path:
        return self.folder / folder / f"{role}-{re.sub(r'[^A-Za-z0-9.]+', '-', serves)}.{ending}"

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if _is_inherited(key)}
        return {**kept, "PREFECT_HOME": str(self.prefect_home), "DO_NOT_TRACK": "1", **settings}


def server_key(api_url: str) -> str:
    """What a local server is recorded for: one address holds one server."""
    return urlsplit(api_url).netloc


def worker_key(pool: str, api_url: str) -> str:
    """What a local worker is recorded for: one worker for each pool of each server."""
    return f"{pool}@{server_key(api_url)}"


def _read_record(file: Path) -> LocalProcess | None:
    try:
        return LocalProcess(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_inherited(key: str) -> bool:
    return not key.startswith("PREFECT_") or key.startswith(_INHERITED_SETTINGS)


def _default_signals() -> None:
    """Undo an ignored SIGINT (a shell ignores it for background jobs): the worker's clean end depends on it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_loopback(api_url: str) -> bool:
    """Whether a URL names this machine only."""
    host = urlsplit(api_url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def port_holder(api_url: str) -> str | None:
    """What listens at a loopback URL's port, in words ("python (pid 4711)"); None where nothing does."""
    address = urlsplit(api_url)
    port = address.port or 80
    with socket.socket(socket.AF_INET6 if ":" in (address.hostname or "") else socket.AF_INET) as probe:
        probe.settimeout(2.0)
        if probe.connect_ex((address.hostname or "127.0.0.1", port)) != 0:
            return None
    return _listener(port) or "a process that this user may not see"


def _listener(port: int) -> str | None:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})" if connection.pid else None
    except psutil.Error:  # some systems let only root look
        return None
    return None
