"""What each kind of server does with the same work: one on SQLite, one on Postgres, and all that docker/compose.yaml
describes (API processes, services, Postgres and Redis: `benchmarks.compose`).

    idle            processors that it takes when nobody asks for anything, and its memory
    runs a second   created in bulk, 100 a request: by one client, then by CLIENTS of them side by side
    CPU of a run    what the server (its database and Redis among it) used until it was idle again, for each of them
    first apply     `orchestrator apply` of DEPLOYMENTS flows of which the server knows nothing, the whole process

No worker takes the runs up. BENCH_KINDS says which (`sqlite,postgres,compose`). What a fan-out costs on each:
BENCH_RUNS=compose:1000 with the group fan-out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.compose import started
from benchmarks.deploy import say, write_repository
from benchmarks.fan_out import IDLE_SECONDS, PATH, SCHEMA, skipping
from benchmarks.measuring import Figure
from benchmarks.servers import Server, create_deployment
from benchmarks.sides import Parent

KINDS = os.environ.get("BENCH_KINDS", "sqlite,postgres,compose")
RUNS = 1000
CLIENTS = 4
DEPLOYMENTS = 100


def benchmark(folder: Path) -> Iterator[Figure]:
    """Each kind in turn."""
    for kind in filter(None, KINDS.split(",")):
        yield from skipping(kind, of_kind(folder / kind, kind))


def of_kind(folder: Path, kind: str) -> Iterator[Figure]:
    """All figures of one kind, on one server."""
    with started(folder, kind) as on:
        create_deployment(on, PATH, parameter_openapi_schema=SCHEMA)
        create(on, folder, clients=1)  # warms it up
        yield Figure(name=f"{kind}: processors, idle", ours=on.cpu_rate(IDLE_SECONDS), unit="")
        yield Figure(name=f"{kind}: memory", ours=megabytes(on.processes), unit="MB")
        for clients in (1, CLIENTS):
            label = f"{kind}, {clients} creating side by side"
            before = on.cpu_seconds()
            yield Figure(name=f"{label}: runs a second", ours=RUNS / create(on, folder, clients), unit="")
            yield Figure(name=f"{label}: CPU of a run", ours=(on.cpu_seconds() - before) / RUNS * 1000, unit="ms")
        yield Figure(name=f"{kind}: first apply of {DEPLOYMENTS}", ours=first_apply(on, folder / "repository"))


def create(on: Server, folder: Path, clients: int) -> float:
    """The seconds that it took the slowest client to create its share, as it tells itself; the server is idle then."""
    with ExitStack() as until_the_end:
        parents = [Parent(folder, on, "bare", PATH, RUNS // clients, "script") for _ in range(clients)]
        for parent in parents:
            until_the_end.enter_context(parent)
        seconds = max(float(parent.tell()["submit_seconds"]) for parent in parents)
    on.settle()
    return seconds


def first_apply(on: Server, repository: Path) -> float:
    write_repository(repository, "ours", DEPLOYMENTS)
    command = [sys.executable, "-m", "orchestrator", "apply", "--yes", "--api-url", on.api_url]
    before = time.monotonic()
    done = subprocess.run(
        command, cwd=repository, env=dict(on.environment), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.monotonic() - before


def megabytes(processes: Sequence[psutil.Process]) -> float:
    """Of all of them with their children; what they share counts once (proportional set size)."""
    members = [member for process in processes for member in (process, *process.children(recursive=True))]
    total: float = sum(member.memory_full_info().pss for member in members)
    say(f"    {len(members)} processes: {total / 2**20:.0f} MB")
    return total / 2**20
