"""The books of the fan-out's fault rounds: a check that finds nothing proves nothing unless it finds what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from tests.soak.fan_out.account import Books, Found, faults_in, found_in

ENDS = {0: "Completed", 1: "TimedOut", 2: "Cancelled", 3: None}
TYPES = {"Completed": "COMPLETED", "TimedOut": "FAILED", "Cancelled": "CANCELLED"}


def right() -> Books:
    """Four runs, all as they should be."""
    runs = tuple(row(f"run-{table}", table, name or "Completed") for table, name in ENDS.items())
    said = {
        "results": {run["id"]: run["state_name"] for run in runs},
        "tables": {run["id"]: run["parameters"]["table"] for run in runs},
    }
    return Books(runs, runs, dict.fromkeys(said["results"], 1), said, retries=0, attempts=1)


def row(id_: str, table: int, state: str) -> dict[str, Any]:
    return {"id": id_, "parameters": {"table": table}, "state_name": state, "state_type": TYPES[state]}


def without(books: Books, what: str) -> Books:
    said = deepcopy(books.said)
    del said[what]["run-1"]
    return replace(books, said=said)


def saying(books: Books, what: str, value: object, id_: str = "run-1") -> Books:
    said = deepcopy(books.said)
    said[what][id_] = value
    return replace(books, said=said)


def with_run(books: Books, run: dict[str, Any]) -> Books:
    runs = (*books.runs, run)
    return replace(books, runs=runs, batch=runs, ends={**books.ends, run["id"]: 1})


SPOILED: dict[str, Callable[[Books], Books]] = {
    "item 1: no run": lambda books: replace(books, runs=(books.runs[0], *books.runs[2:])),
    "item 1: 2 runs": lambda books: with_run(books, row("run-9", 1, "TimedOut")),
    "item 1: its run run-1 ended 0 times": lambda books: replace(books, ends={**books.ends, "run-1": 0}),
    "item 0: its run run-0 ended 2 times": lambda books: replace(books, ends={**books.ends, "run-0": 2}, attempts=2),
    "item 1: its run run-1 ended 1 times": lambda books: replace(books, retries=1),
    "item 0: its run run-0 is TimedOut, not Completed": lambda books: replace(
        books, runs=(row("run-0", 0, "TimedOut"), *books.runs[1:])
    ),
    "run run-3: without the tag of the batch": lambda books: replace(books, batch=books.batch[:3]),
    "run run-9: has the tag of the batch, and is of another": lambda books: replace(
        books, batch=(*books.batch, row("run-9", 1, "Completed"))
    ),
    "run run-1: not in the results": lambda books: without(books, "results"),
    "run run-9: in the results, and not on the server": lambda books: saying(books, "results", "Completed", "run-9"),
    "run run-1: TimedOut on the server, Failed in the results": lambda books: saying(books, "results", "Failed"),
    "run run-1: of item 1, None in the outcomes": lambda books: without(books, "tables"),
    "run run-1: of item 1, 2 in the outcomes": lambda books: saying(books, "tables", 2),
}


def test_books_that_are_right() -> None:
    assert faults_in(right(), ENDS) == []
    assert found_in(right(), ENDS) == Found(items=4, runs=4, ended=4, told=4, faults=())


def test_what_is_found_is_counted() -> None:
    running = {**row("run-9", 1, "Completed"), "state_type": "RUNNING"}
    books = without(with_run(right(), running), "results")
    assert found_in(books, ENDS) == Found(items=4, runs=5, ended=4, told=3, faults=tuple(faults_in(books, ENDS)))


@pytest.mark.parametrize("words", SPOILED)
def test_every_fault_is_told(words: str) -> None:
    assert words in faults_in(SPOILED[words](right()), ENDS)


@pytest.mark.parametrize(("id_", "most"), [("run-0", 1), ("run-1", 2), ("run-2", 4)])
def test_runs_end_as_often_as_they_are_started_again(id_: str, most: int) -> None:
    books = replace(right(), retries=1, attempts=2, ends={"run-0": 1, "run-1": 2, "run-2": 1, "run-3": 1})
    assert faults_in(books, ENDS) == []
    assert faults_in(replace(books, ends={**books.ends, id_: most}), ENDS) == []
    assert len(faults_in(replace(books, ends={**books.ends, id_: most + 1}), ENDS)) == 1
