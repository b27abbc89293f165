"""Whether every run is accounted for exactly once: every fault in words, found by the raw API alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.integration.api import Api

Row = dict[str, Any]
PAGE = 200
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Books:
    """What the server has, and what the submission says."""

    runs: tuple[Row, ...]  # of the children's deployment
    batch: tuple[Row, ...]  # those with the tag of the batch
    ends: dict[str, int]  # run id → how often it has ended
    said: Row  # the parent's report
    retries: int  # of each run
    attempts: int  # of the parent


@dataclass(frozen=True, kw_only=True)
class Found:
    """The books in numbers, and everything that is not as it should be, in words."""

    items: int
    runs: int  # of the children's deployment
    ended: int  # of them
    told: int  # of which the submission says how they ended
    faults: tuple[str, ...]


def found_in(books: Books, ends: Mapping[int, str | None]) -> Found:
    """What the books say; `ends` as for `faults_in`."""
    return Found(
        items=len(ends),
        runs=len(books.runs),
        ended=sum(run["state_type"] in ENDED for run in books.runs),
        told=len(books.said["results"]),
        faults=tuple(faults_in(books, ends)),
    )


def read_books(api: Api, deployment_id: str, said: Row, retries: int, attempts: int) -> Books:
    """Read everything."""
    runs = _pages(api, deployments={"id": {"any_": [deployment_id]}})
    tagged = _pages(api, flow_runs={"tags": {"all_": [said["batch"]]}})
    return Books(runs, tagged, {run["id"]: _ends(api, run["id"]) for run in runs}, said, retries, attempts)


def faults_in(books: Books, ends: Mapping[int, str | None]) -> list[str]:
    """Everything that is not as it should be.

    Args:
        books: what is.
        ends: the name of the state in which the run of each item ends; None where that is open.
    """
    return [*_wrong_runs(books, ends), *_wrong_batch(books), *_wrong_report(books)]


def _wrong_runs(books: Books, ends: Mapping[int, str | None]) -> Iterator[str]:
    tables = Counter(run["parameters"]["table"] for run in books.runs)
    yield from (f"item {table}: no run" for table in sorted(ends.keys() - tables.keys()))
    yield from (f"item {table}: {count} runs" for table, count in sorted(tables.items()) if count > 1)
    for run in books.runs:
        table = run["parameters"]["table"]
        if books.ends[run["id"]] not in _ends_allowed(run["state_type"], books.retries, books.attempts):
            yield f"item {table}: its run {run['id']} ended {books.ends[run['id']]} times"
        if ends.get(table) not in (None, run["state_name"]):
            yield f"item {table}: its run {run['id']} is {run['state_name']}, not {ends[table]}"


def _ends_allowed(state_type: str, retries: int, attempts: int) -> range:
    """How often a run may have ended. Another attempt of the parent runs again what was cancelled, which may have been
    ended with it; it gives the failed ones no more retries than the first has left."""
    if state_type == "COMPLETED":
        return range(1, 2)
    if state_type == "CANCELLED":
        return range(1, (1 + retries) * attempts + 1)
    return range(1 + retries, 2 + retries)


def _wrong_batch(books: Books) -> Iterator[str]:
    runs, tagged = ({run["id"] for run in rows} for rows in (books.runs, books.batch))
    yield from (f"run {id_}: without the tag of the batch" for id_ in sorted(runs - tagged))
    yield from (f"run {id_}: has the tag of the batch, and is of another" for id_ in sorted(tagged - runs))


def _wrong_report(books: Books) -> Iterator[str]:
    results, tables = books.said["results"], books.said["tables"]
    have = {run["id"]: run for run in books.runs}
    yield from (f"run {id_}: not in the results" for id_ in sorted(have.keys() - results.keys()))
    yield from (f"run {id_}: in the results, and not on the server" for id_ in sorted(results.keys() - have.keys()))
    for id_ in sorted(have.keys() & results.keys()):
        if results[id_] != have[id_]["state_name"]:
            yield f"run {id_}: {have[id_]['state_name']} on the server, {results[id_]} in the results"
        if tables.get(id_) != have[id_]["parameters"]["table"]:
            yield f"run {id_}: of item {have[id_]['parameters']['table']}, {tables.get(id_)} in the outcomes"


def _ends(api: Api, run_id: str) -> int:
    states = api.get(f"/flow_run_states/?flow_run_id={run_id}")
    return sum(state["type"] in ENDED for state in states)


def _pages(api: Api, **query: Any) -> tuple[Row, ...]:
    rows: list[Row] = []
    while page := api.post("/flow_runs/filter", **query, sort="ID_DESC", limit=PAGE, offset=len(rows)):
        rows += page
    return tuple(rows)
