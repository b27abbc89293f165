"""All runs at once: as many run as workers, queue and pool let through."""

from __future__ import annotations

import asyncio
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.direct_run import run_directly
from orchestrator.submission import cancel_children, flow_submitter


@flow(name="pattern-parallel", on_cancellation=[cancel_children], on_crashed=[cancel_children])
async def parallel(items: Annotated[int, Field(ge=1, le=1000)] = 4) -> dict[str, str]:
    """Run work-item for every item at once, wait for all, and fail if one has failed.

    Args:
        items: how many runs.

    Returns:
        the final state's name of each run, by run id.
    """
    async with flow_submitter("work-item") as etl:
        await asyncio.gather(*(etl.submit(item=item) for item in range(items)))
        results = await etl.wait()
    etl.raise_for_failures()
    return results


if __name__ == "__main__":
    run_directly(parallel)
