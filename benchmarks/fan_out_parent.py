"""One side of benchmarks.fan_out, in a process of its own: submit N runs of a deployment and wait for them.

    python -m benchmarks.fan_out_parent WAY FLOW/DEPLOYMENT N flow|script

    naive   `benchmarks.naive_submission`: gather(submit), then one read per pending run every two seconds
    bare    the bulk route, 100 a call with idempotency keys, one call after another, and nothing else; does not wait
    ours    `flow_submitter(path)`: `submit_many`, then `wait`, with `as_completed` beside it to note who is told when

`flow` does it inside a flow run, `script` outside. The process writes two lines of JSON: what it has submitted as soon
as it has, and what it saw when all is done. Requests are counted where httpx sends them, repeated ones each time;
websockets are not among them.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import httpx
from prefect import flow
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

from benchmarks import naive_submission
from orchestrator import flow_submitter

BULK = 100
NAIVE_POLL_SECONDS = 2
OUR_POLL_SECONDS = 5  # the default
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Report:
    """What is told to the benchmark."""

    requests: Counter[str] = field(default_factory=Counter)  # by method and path
    seen: dict[str, float] = field(default_factory=dict)  # run id: when its end was known here
    started: float = field(default_factory=time.perf_counter)

    def submitting(self) -> None:
        self.started = time.perf_counter()

    def submitted(self, run_ids: list[str], failed: int = 0) -> None:
        seconds = time.perf_counter() - self.started
        tell(submit_seconds=seconds, run_ids=run_ids, failed=failed, submit_requests=self.requests.total())

    def done(self, seconds: float) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        tell(
            seconds=seconds,
            seen=self.seen,
            requests=dict(self.requests),
            megabytes=usage.ru_maxrss / 1024,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
        )


def tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


@contextmanager
def counted(requests: Counter[str]) -> Iterator[None]:
    """Count what this process sends by httpx."""
    in_tasks, in_threads = httpx.AsyncHTTPTransport.handle_async_request, httpx.HTTPTransport.handle_request

    @contextmanager
    def noted(request: httpx.Request) -> Iterator[None]:
        path = f"{request.method} {ID.sub('{id}', request.url.path)}"
        requests[path] += 1
        try:
            yield
        except httpx.PoolTimeout:  # it waited for a connection in vain, and the server never heard of it
            requests[path] -= 1
            raise

    async def count_in_tasks(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        with noted(request):
            return await in_tasks(self, request)

    def count_in_threads(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        with noted(request):
            return in_threads(self, request)

    with (
        patch.object(httpx.AsyncHTTPTransport, "handle_async_request", count_in_tasks),
        patch.object(httpx.HTTPTransport, "handle_request", count_in_threads),
    ):
        yield


async def naive(path: str, size: int, report: Report) -> None:
    """A submit that fails does not end the others, or there would be nothing to measure."""
    etl = naive_submission.flow_submitter(path)
    etl.results = Noted(report.seen)
    report.submitting()
    answers = await asyncio.gather(*(etl.submit(number=number) for number in range(size)), return_exceptions=True)
    report.submitted(etl.run_ids, failed=sum(isinstance(answer, BaseException) for answer in answers))
    await etl.wait(poll_interval=NAIVE_POLL_SECONDS)


class Noted(dict[str, str]):
    """Results, and when each of them was known."""

    def __init__(self, seen: dict[str, float]) -> None:
        super().__init__()
        self._seen = seen

    def __setitem__(self, run_id: str, state_name: str) -> None:
        self._seen[run_id] = time.time()
        super().__setitem__(run_id, state_name)


async def ours(path: str, size: int, report: Report) -> None:
    etl = flow_submitter(path)
    report.submitting()
    run_ids = await etl.submit_many([{"number": number} for number in range(size)])
    report.submitted(run_ids)

    async def note_ends() -> None:
        async for outcome in etl.as_completed():
            report.seen[outcome.id] = time.time()

    await asyncio.gather(etl.wait(poll_interval=OUR_POLL_SECONDS), note_ends())


async def bare(path: str, size: int, report: Report) -> None:
    batch = uuid4()
    user, _, password = (PREFECT_API_AUTH_STRING.value() or "").partition(":")
    auth = (user, password) if user else None
    async with httpx.AsyncClient(base_url=PREFECT_API_URL.value(), auth=auth, timeout=120) as client:
        report.submitting()
        deployment = (await client.get(f"/deployments/name/{path}")).raise_for_status().json()["id"]
        run_ids = []
        for first in range(0, size, BULK):
            numbers = range(first, min(first + BULK, size))
            runs = [{"parameters": {"number": number}, "idempotency_key": f"{batch}:{number}"} for number in numbers]
            run_ids += await create(client, deployment, runs)
        report.submitted(run_ids)


async def create(client: httpx.AsyncClient, deployment: str, runs: list[dict[str, Any]]) -> list[str]:
    """One bulk call, again with the same keys where SQLite was locked: then no item of the answer counts."""
    while True:
        answer = await client.post(f"/deployments/{deployment}/create_flow_run/bulk", json=runs)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            results = answer.raise_for_status().json()["results"]
            if all(result["status"] == "CREATED" for result in results):
                return [result["flow_run_id"] for result in results]


WAYS: dict[str, Callable[[str, int, Report], Awaitable[None]]] = {"naive": naive, "bare": bare, "ours": ours}


async def run(way: str, path: str, size: int, parent: str, report: Report) -> None:
    work = WAYS[way]
    if parent == "flow":

        @flow(name="bench-parent")
        async def bench_parent() -> None:
            await work(path, size, report)

        await bench_parent()
    else:
        await work(path, size, report)


def main(way: str, path: str, size: str, parent: str) -> None:
    report = Report()
    with counted(report.requests):
        started = time.perf_counter()
        asyncio.run(run(way, path, int(size), parent, report))
        seconds = time.perf_counter() - started
        APILogHandler().flush()  # log records on their way are requests, too
    report.done(seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
