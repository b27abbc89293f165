"""Twenty real children on a real process worker, submitted and awaited by a flow: what the parent adds to them.

    overhead    the parent's seconds (its flow run's start and end included, Python's start not), less those from its
                first child's creation to its last child's end; asked in relation to the sum of the children's run times
    one child   CPU of the worker and all that it starts, and of the server, above what both take idle, divided by the
                number of children; and the seconds from when the worker takes a child up (Pending) to its end, less
                those that it slept

Each child sleeps for CHILD_SECONDS. The worker polls every 2 s, as that of `make bootstrap`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.compose import started
from benchmarks.deploy import POOL, say, send
from benchmarks.measuring import Figure
from benchmarks.servers import Server, create_deployment, running, tree_cpu_seconds
from benchmarks.sides import Parent

CHILDREN = 20
CHILD_SECONDS = 10
IDLE_SECONDS = 20.0
OVERHEAD_RATIO = 0.05
PATH = "bench-child/real"
WORKERS = f"/work_pools/{POOL}/workers/filter"
STATES = "/flow_run_states/?flow_run_id={}"
SOURCE = f'''"""A child that waits for somebody else, as most ETL does."""

import time

from prefect import flow


@flow(name="bench-child")
def child(number: int) -> None:
    time.sleep({CHILD_SECONDS})
'''
SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}


def benchmark(folder: Path, database: str) -> Iterator[Figure]:
    """One child by itself, which warms all up, then all of them at once."""
    with started(folder, database) as on:
        deploy(on, folder / "flows")
        with worker(on, folder) as process:
            bench = Bench(folder, on, process)
            alone, together = bench.run(1), bench.run(CHILDREN)
    for taken in (alone, together):
        taken.say()
    label = f"{database}, {CHILDREN} real children"
    yield Figure(name=f"{database}, one real child: seconds beyond its sleep", ours=alone.median_cost)
    yield Figure(name=f"{label}: each one's seconds beyond its sleep, median", ours=together.median_cost)
    yield Figure(name=f"{label}: CPU of the worker for one", ours=together.worker_cpu / CHILDREN)
    yield Figure(name=f"{label}: CPU of the server for one", ours=together.server_cpu / CHILDREN)
    yield Figure(
        name=f"{label}: overhead of the parent / sum of their seconds",
        ours=together.overhead,
        peer=together.sum_of_children,
        at_most=OVERHEAD_RATIO,
    )


@dataclass(frozen=True, kw_only=True)
class Child:
    """When things happened to a child, in seconds since the epoch, on the server's clock."""

    created: float
    taken: float  # by the worker: Pending
    started: float
    ended: float
    succeeded: bool


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a parent and its children took."""

    parent_seconds: float
    parent_cpu: float
    worker_cpu: float  # above an idle worker
    server_cpu: float  # above an idle server
    children: Sequence[Child]

    @property
    def span(self) -> float:
        """From the first child's creation to the last one's end."""
        return max(child.ended for child in self.children) - min(child.created for child in self.children)

    @property
    def overhead(self) -> float:
        return self.parent_seconds - self.span

    @property
    def sum_of_children(self) -> float:
        return sum(child.ended - child.started for child in self.children)

    @property
    def median_cost(self) -> float:
        return statistics.median(child.ended - child.taken for child in self.children) - CHILD_SECONDS

    def say(self) -> None:
        count = len(self.children)
        say(f"{count} real children of {CHILD_SECONDS} s: the parent took {self.parent_seconds:.1f} s")
        say(f"    {self.span:.1f} s from the first creation to the last end; its CPU {self.parent_cpu:.1f} s")
        say(f"    CPU a child: {self.worker_cpu / count:.2f} s worker, {self.server_cpu / count:.2f} s server")


class Bench:
    """A server and a worker, and what both take when there is nothing to do."""

    def __init__(self, folder: Path, on: Server, worker: psutil.Process) -> None:
        self.folder, self.server, self.worker = folder, on, worker
        on.settle()
        self.idle = self._used()
        started = time.monotonic()
        time.sleep(IDLE_SECONDS)
        self.idle = [used / (time.monotonic() - started) for used in self._since(self.idle)]

    def run(self, size: int) -> Taken:
        """One parent with so many children, until the last process of theirs has gone."""
        before, started = self._used(), time.monotonic()
        with Parent(self.folder, self.server, "ours", PATH, size, "flow") as process:
            run_ids = process.tell()["run_ids"]
            done = process.tell()
        self._await_processes()
        seconds = time.monotonic() - started
        cpu = [used - rate * seconds for used, rate in zip(self._since(before), self.idle, strict=True)]
        return Taken(
            parent_seconds=done["seconds"],
            parent_cpu=done["cpu_seconds"],
            server_cpu=cpu[0],
            worker_cpu=cpu[1],
            children=read_children(self.server, run_ids),
        )

    def _used(self) -> list[float]:
        return [self.server.cpu_seconds(), tree_cpu_seconds(self.worker)]

    def _since(self, before: Sequence[float]) -> list[float]:
        return [now - then for now, then in zip(self._used(), before, strict=True)]

    def _await_processes(self) -> None:
        """Wait until no child's process is left; what it used counts for the worker once it has gone."""
        while self.worker.children():
            time.sleep(0.1)


def deploy(on: Server, folder: Path) -> None:
    """The child's deployment, which runs from a folder."""
    folder.mkdir()
    (folder / "child.py").write_text(SOURCE, encoding="utf-8")
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}]
    create_deployment(on, PATH, entrypoint="child.py:child", pull_steps=steps, parameter_openapi_schema=SCHEMA)


@contextmanager
def worker(on: Server, folder: Path) -> Iterator[psutil.Process]:
    """A process worker, from when the server knows that it is online to the end of the block."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    environment = {**on.environment, "PREFECT_WORKER_QUERY_SECONDS": "2"}
    with running(command, folder / "worker.log", environment) as process, on.client() as client:
        while not any(row["status"] == "ONLINE" for row in send(client, "POST", WORKERS, {})):
            if process.status() == psutil.STATUS_ZOMBIE:
                raise SystemExit(f"the worker did not start:\n{(folder / 'worker.log').read_text(encoding='utf-8')}")
            time.sleep(0.2)
        yield process


def read_children(on: Server, run_ids: Sequence[str]) -> list[Child]:
    with on.client() as client:
        rows = send(client, "POST", "/flow_runs/filter", {"flow_runs": {"id": {"any_": list(run_ids)}}})
        children = [child_of(row, send(client, "GET", STATES.format(row["id"]))) for row in rows]
    if len(children) != len(run_ids) or not all(child.succeeded for child in children):
        raise SystemExit(f"not all of the {len(run_ids)} real children completed: see the worker's log")
    return children


def child_of(row: dict[str, Any], states: Sequence[dict[str, Any]]) -> Child:
    at = {state["type"]: moment(state["timestamp"]) for state in states}
    return Child(
        created=moment(row["created"]),
        taken=at["PENDING"],
        started=moment(row["start_time"]),
        ended=moment(row["end_time"]),
        succeeded="COMPLETED" in at,
    )


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
