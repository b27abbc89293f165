"""The flow that fans out, as anybody would write it, and says at its end what it takes for true.

It is executed by a process of its own, again and again under one flow run: see `parent.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import anyio
from prefect import flow

from orchestrator import flow_submitter
from orchestrator.submission import FlowSubmission

POLL_SECONDS = 2
WINDOW = 6
RETRY_SECONDS = 1


async def _at_once(etl: FlowSubmission, items: int) -> None:
    await etl.submit_many([{"table": table} for table in range(items)])


async def _gathered(etl: FlowSubmission, items: int) -> None:
    await asyncio.gather(*(etl.submit(table=table) for table in range(items)))


async def _one_by_one(etl: FlowSubmission, items: int) -> None:
    for table in range(items):
        await etl.submit(table=table)


WAYS: dict[str, Callable[[FlowSubmission, int], Awaitable[None]]] = {
    "at once": _at_once,
    "gathered": _gathered,
    "one by one": _one_by_one,
    "window": _at_once,
}


@flow(name="fan-out-parent")
async def fan_out(path: str, items: int, way: str, retries: int, report: str) -> None:
    """Submit one run for each item and wait for all.

    Args:
        path: of the children's deployment.
        items: how many; each has its number as a parameter.
        way: one of WAYS.
        retries: how often a run that ends badly is started again.
        report: the file that gets what the submission says of its runs.
    """
    window = WINDOW if way == "window" else None
    etl = flow_submitter(path, max_in_flight=window, retries=retries, retry_delay=RETRY_SECONDS)
    await WAYS[way](etl, items)
    results = await etl.wait(poll_interval=POLL_SECONDS)
    said = {
        "batch": etl.batch_tag,
        "results": results,
        "tables": {id_: outcome.parameters["table"] for id_, outcome in etl.outcomes.items()},
    }
    await anyio.Path(report).write_text(json.dumps(said))
