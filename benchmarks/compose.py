"""docker/compose.yaml on this machine and without containers: the same commands, settings and health checks.

Names of services become 127.0.0.1, ports free ones, and what the file mounts is taken from docker/. Postgres and Redis
are the programs that are installed here; of their images only the health checks are left. Tests and benchmarks use it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.deploy import free_port
from benchmarks.servers import (
    POSTGRES_USER,
    START_SECONDS,
    Server,
    binary,
    clean_environment,
    postgres,
    running,
    server,
)

FILE = Path(__file__).parents[1] / "docker" / "compose.yaml"
# What docker/.env says here. Characters that an address must quote belong to a good password.
VARIABLES = {"POSTGRES_PASSWORD": "p@ss:w/rd?", "PREFECT_API_AUTH_STRING": "admin:l@cal:w/rd"}
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")
_POSTGRES, _REDIS, _SERVER, _WORKER = "5432", "6379", "4200", "8080"  # the ports inside of the containers
_A_PORT = re.compile(rf"(?<![\w.])({_POSTGRES}|{_REDIS}|{_SERVER}|{_WORKER})(?![\w.])")
_A_SERVICE = re.compile(r"(?:^|(?<=//))(?:postgres|redis|server)(?=:\d|$)")


class MissingVariable(Exception):
    """The file asks for a variable that nobody has set; the message is the file's."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service of the file, its variables filled in."""

    name: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    health: tuple[str, ...] = ()  # a command


def document() -> dict[str, Any]:
    """The file as it is written."""
    read: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return read


def filled_in(value: Any, variables: Mapping[str, str]) -> Any:
    """A part of the file with its variables replaced, as compose does it, in the forms that the file uses.

    Raises:
        MissingVariable: one is not set and has no default.
    """
    if isinstance(value, Mapping):
        return {name: filled_in(inner, variables) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled_in(inner, variables) for inner in value]
    return _VARIABLE.sub(lambda found: _value_of(found, variables), value) if isinstance(value, str) else value


def _value_of(found: re.Match[str], variables: Mapping[str, str]) -> str:
    set_to = variables.get(found["name"], "")
    if set_to or found["how"] != "?":
        return set_to or found["rest"] or ""
    raise MissingVariable(f"{found['name']}: {found['rest']}")


def services(variables: Mapping[str, str]) -> dict[str, Service]:
    """All services by name."""
    written = filled_in(document()["services"], variables)
    return {name: _service(name, section) for name, section in written.items()}


def _service(name: str, section: Mapping[str, Any]) -> Service:
    return Service(
        name=name,
        command=tuple(section.get("command", ())),
        environment={key: str(value) for key, value in section.get("environment", {}).items()},
        health=tuple(section.get("healthcheck", {}).get("test", ())[1:]),  # after CMD
    )


# ---------------------------------------------------------------------------------------------------------
# Running it
# ---------------------------------------------------------------------------------------------------------


def on_this_machine(service: Service, ports: Mapping[str, int]) -> Service:
    """A service as it runs without a container.

    Args:
        service: of the file.
        ports: by the port inside of the container.
    """
    return Service(
        name=service.name,
        command=_command(service.command, ports),
        environment={key: _address(value, ports) for key, value in service.environment.items()},
        health=_command(service.health, ports),
    )


def _command(written: Sequence[str], ports: Mapping[str, int]) -> tuple[str, ...]:
    if not written:
        return ()
    program, *arguments = (_ported(word, ports).replace("0.0.0.0", "127.0.0.1") for word in written)
    arguments = [word.replace("/opt/", f"{FILE.parent}/") for word in arguments]
    if program in ("prefect", "python"):
        return (sys.executable, *(("-m", "prefect") if program == "prefect" else ()), *arguments)
    return (binary(program), *arguments)


def _address(written: str, ports: Mapping[str, int]) -> str:
    return _A_SERVICE.sub("127.0.0.1", _ported(written, ports))


def _ported(written: str, ports: Mapping[str, int]) -> str:
    return _A_PORT.sub(lambda found: str(ports.get(found[0], found[0])), written)


@contextmanager
def composed(
    folder: Path, variables: Mapping[str, str], *, workers: int = 0, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """All but the docker worker, healthy, stopped at the end with all that belongs to it.

    Args:
        folder: for logs, Redis' data and Prefect's home; made here.
        variables: what docker/.env says.
        workers: how many containers of `worker-process` there would be.
        settings: of all processes, over those of the file.

    Raises:
        NotAvailable: Postgres or redis-server is not installed, or may not be run here.
    """
    folder.mkdir(parents=True)
    binary("redis-server")
    with postgres() as (url, postmaster), ExitStack() as until_the_end:  # what uses it ends before it does
        ports = {_POSTGRES: int(url.rsplit(":", 1)[1].partition("/")[0]), _REDIS: free_port(), _SERVER: free_port()}
        stack = _Stack(folder, services(variables), ports, settings or {}, until_the_end)
        create_database(ports[_POSTGRES])
        stack.await_health("postgres")
        processes = [postmaster, stack.start("redis")]
        stack.run_to_its_end("migrate")
        processes += [stack.start("server", waits=False), stack.start("services", waits=False)]
        for name in ("server", "services"):
            stack.await_health(name)
        stack.start_workers(workers)
        yield Server(
            api_url=f"http://127.0.0.1:{ports[_SERVER]}/api",
            environment=stack.environment("worker-process"),
            processes=processes,
        )


@contextmanager
def started(folder: Path, kind: str) -> Iterator[Server]:
    """A fresh server for benchmarks: on "sqlite", on "postgres", or all that the file describes ("compose").

    None marks runs as Late, as `servers.prefect_server` says.

    Raises:
        NotAvailable: what it needs is not installed here.
    """
    if kind != "compose":
        with server(folder, kind) as alone:
            yield alone
        return
    with composed(folder, VARIABLES, settings={"PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false"}) as together:
        yield together


def create_database(port: int) -> None:
    """What the image of Postgres makes of its variables."""
    said = ("create role prefect login", "create database prefect owner prefect")
    command = [binary("psql"), "--quiet", "--host=127.0.0.1", f"--port={port}", f"--username={POSTGRES_USER}"]
    subprocess.run([*command, *(f"--command={each}" for each in said)], check=True)


class _Stack:
    """The services that run, each until the end of a block, and what their health checks say."""

    def __init__(
        self,
        folder: Path,
        written: Mapping[str, Service],
        ports: Mapping[str, int],
        settings: Mapping[str, str],
        until_the_end: ExitStack,
    ) -> None:
        self.folder, self.written, self.ports = folder, written, ports
        self._settings, self._until_the_end = settings, until_the_end

    def environment(self, name: str) -> dict[str, str]:
        """What a service's processes find set."""
        here = on_this_machine(self.written[name], self.ports)
        return {**clean_environment(self.folder), **here.environment, **self._settings}

    def start(self, name: str, *, waits: bool = True) -> psutil.Process:
        """Start a service; returns when it is healthy, if it waits."""
        here = on_this_machine(self.written[name], self.ports)
        process = self._until_the_end.enter_context(running(here.command, self._log(name), self.environment(name)))
        if waits:
            self.await_health(name)
        return process

    def start_workers(self, count: int) -> None:
        """Start so many containers' worth of process workers: each has a port 8080 of its own."""
        here = on_this_machine(self.written["worker-process"], self.ports)
        for number, port in enumerate([free_port() for _ in range(count)]):
            environment = {**self.environment(here.name), "PREFECT_WORKER_WEBSERVER_PORT": str(port)}
            self._until_the_end.enter_context(running(here.command, self._log(f"worker-{number}"), environment))
            self._until_healthy(f"worker-{number}", _command(self.written[here.name].health, {_WORKER: port}))

    def run_to_its_end(self, name: str) -> None:
        here = on_this_machine(self.written[name], self.ports)
        done = subprocess.run(here.command, env=self.environment(name), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")

    def await_health(self, name: str) -> None:
        """Wait until the health check of a service says that it is well."""
        self._until_healthy(name, on_this_machine(self.written[name], self.ports).health)

    def _until_healthy(self, name: str, check: Sequence[str]) -> None:
        environment = self.environment(name) if name in self.written else dict(os.environ)
        deadline = time.monotonic() + START_SECONDS
        while (done := subprocess.run(check, env=environment, capture_output=True, text=True)).returncode:
            if time.monotonic() > deadline:
                log = self._log(name)
                said = log.read_text(encoding="utf-8")[-3000:] if log.exists() else ""
                raise SystemExit(f"{name} is not healthy: {done.stderr or done.stdout}\n{said}")
            time.sleep(1)  # the check is a process of its own, and takes from what it waits for

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"
