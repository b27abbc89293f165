"""Submit N runs of a deployment and wait until each has ended, ours against the obvious code and a bare bulk loop.

    ours      `flow_submitter(path)`: `submit_many`, then `wait`, as far as BENCH_PARENT says inside a flow ("flow", the
              default), outside ("script"), or both ("flow,script")
    bare      the bulk route in a loop and nothing else, before and after ours: what the server needs to create the runs
    naive     design note 4's code, inside a flow (`benchmarks.naive_submission`)
    control   the bare loop's runs, ended while nobody waits for them

Each side is a process of its own (`benchmarks.fan_out_parent`) and has the server to itself. The runs belong to a pool
of type process with Prefect's own template, and no worker takes them up: **a script ends them through the API**
(`benchmarks.ender`), spread over about 40 s for up to 1,000 of them. Twenty real children on a real worker follow
(`benchmarks.real_children`).

    requests            all that the side's process sends, its flow run's own states and logs included; no websockets
    submit              from the first call to the last answer, in the process; not its start
    known after         the moment at which the process knows of an end, less the `end_time` that the server recorded
    server CPU          of the server and its database from the end of submitting until they are idle again, above an
                        idle server and above the control: what waiting costs

BENCH_RUNS says which (`sqlite:200,postgres:1000,postgres:10000`), BENCH_REAL where there are real children
(`sqlite,postgres`); `compose` is all that docker/compose.yaml describes (`benchmarks.compose`). From MANY runs on there
is neither naive nor control. Where no Postgres is to be had, its part is skipped.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.compose import started
from benchmarks.deploy import say, send
from benchmarks.measuring import Figure
from benchmarks.real_children import benchmark as real_children
from benchmarks.servers import NotAvailable, Server, create_deployment
from benchmarks.sides import REPOSITORY, Parent

RUNS = os.environ.get("BENCH_RUNS", "sqlite:200,postgres:1000,postgres:10000")
REAL = os.environ.get("BENCH_REAL", "sqlite,postgres")
PARENTS = tuple(os.environ.get("BENCH_PARENT", "flow").split(","))
MANY = 5000
ASKED_FROM = 1000  # runs
SPREAD_SECONDS = 40.0  # from the first end to the last one, for up to 1,000
WARM_UP = 100
IDLE_SECONDS = 20.0
PAGE = 200
PATH = "bench-child/bench"
SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
REQUESTS, BULK_RATIO, FASTER, CPU_RATIO = 40, 1.2, 1 / 5, 1 / 3  # what is asked
MEDIAN_SECONDS, P99_SECONDS, MEGABYTES = 0.1, 1.0, 300


def benchmark(folder: Path) -> Iterator[Figure]:
    """Each database and size in turn, then the real children."""
    for case in filter(None, RUNS.split(",")):
        database, _, size = case.partition(":")
        yield from skipping(database, at_size(folder / f"{database}-{size}", database, int(size)))
    for database in filter(None, REAL.split(",")):
        yield from skipping(database, real_children(folder / f"real-{database}", database))


def at_size(home: Path, database: str, size: int) -> Iterator[Figure]:
    with started(home, database) as on:
        yield from Bench(home, database, size, on).figures()


def skipping(database: str, figures: Iterator[Figure]) -> Iterator[Figure]:
    """The figures, or a line that says why there are none."""
    try:
        yield from figures
    except NotAvailable as reason:
        say(f"skipped: there is no {database} here: {reason}")


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side took."""

    runs: int
    failed: int  # submits that raised
    submit_seconds: float
    submit_requests: int
    requests: Mapping[str, int]  # by method and path
    delays: Sequence[float]  # how long after its end each run was known to have ended
    server_cpu: float  # while it waited, above an idle server
    megabytes: float
    cpu_seconds: float  # of its own process

    @property
    def total_requests(self) -> int:
        return sum(self.requests.values())

    @property
    def median(self) -> float:
        return statistics.median(self.delays)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.delays, n=100, method="inclusive")[98]

    def waiting_cpu(self, control: Side) -> float:
        """What its waiting cost the server, beyond what ending so many runs does."""
        return self.server_cpu - control.server_cpu * self.runs / control.runs


class Bench:
    """All sides at one size, on one server."""

    def __init__(self, folder: Path, database: str, size: int, on: Server) -> None:
        self.folder, self.database, self.size, self.server = folder, database, size, on
        self.idle_rate = 0.0
        create_deployment(on, PATH, parameter_openapi_schema=SCHEMA)
        self.first = self._side("bare", "script", size if size < MANY else WARM_UP)
        self.idle_rate = on.cpu_rate(IDLE_SECONDS)
        say(f"{database}: an idle server takes {self.idle_rate:.1%} of a processor")

    def figures(self) -> Iterator[Figure]:
        """Ours between two bare loops, since the machine's speed varies, and the naive code last."""
        all_ours = {parent: self._side("ours", parent, self.size) for parent in PARENTS}
        bare = self._side("bare", "script", self.size)
        naive = self._side("naive", "flow", self.size) if self.size < MANY else None
        for parent, ours in all_ours.items():
            label = f"{self.database}, {self.size} runs, {parent}"
            yield self._against_bare(label, ours, bare)
            if naive:
                yield self._against_naive(label, ours, naive)
                yield self._waiting(label, ours.waiting_cpu(bare), naive.waiting_cpu(bare))
            yield from self._with_bounds(label, ours, naive)

    def _against_bare(self, label: str, ours: Side, bare: Side) -> Figure:
        loops = [loop.submit_seconds for loop in (self.first, bare) if loop.runs == self.size]
        return Figure(
            name=f"{label}: submit / bare loop",
            ours=ours.submit_seconds,
            peer=statistics.mean(loops),
            at_most=self._asked(BULK_RATIO),
        )

    def _against_naive(self, label: str, ours: Side, naive: Side) -> Figure:
        return Figure(
            name=f"{label}: submit / naive",
            ours=ours.submit_seconds,
            peer=naive.submit_seconds,
            at_most=FASTER if self.database == "sqlite" else None,
        )

    def _waiting(self, label: str, ours: float, naive: float) -> Figure:
        return Figure(name=f"{label}: server CPU, waiting", ours=ours, peer=naive, at_most=self._asked(CPU_RATIO))

    def _with_bounds(self, label: str, ours: Side, naive: Side | None) -> Iterator[Figure]:
        """What has a bound of its own; the naive code's figure stands beside it where there is one."""
        measures: list[tuple[str, Callable[[Side], float], float | None, str]] = [
            ("requests", lambda side: side.total_requests, self._asked(REQUESTS * self.size / ASKED_FROM), ""),
            ("known after, median", lambda side: side.median, MEDIAN_SECONDS, "s"),
            ("known after, p99", lambda side: side.p99, P99_SECONDS, "s"),
            ("peak memory", lambda side: side.megabytes, MEGABYTES, "MB"),
        ]
        for name, of, bound, unit in measures:
            peer = of(naive) if naive else math.nan
            yield Figure(name=f"{label}: {name}", ours=of(ours), peer=peer, bound=bound, unit=unit)

    def _asked(self, bound: float) -> float | None:
        """What is asked of a thousand runs; fewer are linked to their parent inside a flow, a write for each."""
        return bound if self.size >= ASKED_FROM else None

    def _side(self, way: str, parent: str, size: int) -> Side:
        """One side from its first submit until the server is idle again; of MANY bare runs none is ended."""
        with Parent(self.folder, self.server, way, PATH, size, parent) as process:
            submitted = process.tell()
            before, started = self.server.cpu_seconds(), time.monotonic()
            is_ended = way != "bare" or size < MANY
            with ender(self.server, submitted["run_ids"] if is_ended else ()):
                done = process.tell()
        self.server.settle(self.idle_rate)
        idle = self.idle_rate * (time.monotonic() - started)
        side = Side(
            runs=len(submitted["run_ids"]),
            failed=submitted["failed"],
            submit_seconds=submitted["submit_seconds"],
            submit_requests=submitted["submit_requests"],
            requests=done["requests"],
            delays=delays(self.server, done["seen"]),
            server_cpu=self.server.cpu_seconds() - before - idle,
            megabytes=done["megabytes"],
            cpu_seconds=done["cpu_seconds"],
        )
        self._say(way, parent, side)
        return side

    def _say(self, way: str, parent: str, side: Side) -> None:
        """What the table has no room for."""
        said = f"{self.database}, {way} ({parent}): {side.runs} runs submitted in {side.submit_seconds:.1f} s"
        said += f" by {side.submit_requests} requests, {side.failed} never; server CPU {side.server_cpu:.1f} s"
        say(f"{said}; client CPU {side.cpu_seconds:.1f} s, {side.megabytes:.0f} MB")
        if way == "bare":
            return
        say(f"    known {side.median:.3f} s (median), {side.p99:.3f} s (p99) after the end; unseen: {unseen(side)}")
        for path, count in sorted(side.requests.items(), key=lambda item: -item[1]):
            say(f"    {count:6} {path}")


def unseen(side: Side) -> int:
    """Runs whose end it has not told."""
    return side.runs - len(side.delays)


def delays(on: Server, seen: Mapping[str, float]) -> list[float]:
    """From the end that the server recorded to the moment at which it was known, for each run."""
    ids, found = list(seen), []
    with on.client() as client:
        for first in range(0, len(ids), PAGE):
            wanted = {"flow_runs": {"id": {"any_": ids[first : first + PAGE]}}, "limit": PAGE}
            for row in send(client, "POST", "/flow_runs/filter", wanted):
                found.append(seen[row["id"]] - datetime.fromisoformat(row["end_time"]).timestamp())
    return sorted(found)


@contextmanager
def ender(on: Server, run_ids: Sequence[str]) -> Iterator[None]:
    """The script that ends them; at the end of the block it has."""
    seconds = max(SPREAD_SECONDS, SPREAD_SECONDS / 1000 * len(run_ids))
    command = [sys.executable, "-m", "benchmarks.ender", on.url_with_credentials, str(seconds)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin
            process.stdin.write(json.dumps(list(run_ids)))
            process.stdin.close()
            yield
            process.wait()
        finally:
            process.kill()
    if process.returncode:
        raise SystemExit("the script that ends the runs failed")
