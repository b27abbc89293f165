"""Parallel phases, then a step alone: what depends on all starts when all have completed."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.direct_run import run_directly
from orchestrator.submission import cancel_children, flow_submitter


@flow(name="pattern-mixed", on_cancellation=[cancel_children], on_crashed=[cancel_children])
async def mixed(sources: Annotated[int, Field(ge=1, le=20)] = 2) -> int:
    """Extract from all sources at once; when all are there, load their sum.

    Args:
        sources: how many sources to extract from.

    Returns:
        what the load has returned.
    """
    async with flow_submitter("work-item", tags=["extract"]) as extract:
        await extract.map(item=range(1, sources + 1))
    extract.raise_for_failures()  # the block has waited for all of them
    values = await extract.results()

    async with flow_submitter("work-item", tags=["load"]) as load:
        run_id = await load.submit(item=sum(values.values()))
    load.raise_for_failures()
    total: int = (await load.results())[run_id]
    return total


if __name__ == "__main__":
    run_directly(mixed)
