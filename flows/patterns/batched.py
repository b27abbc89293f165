"""A batch at a time: the next one starts when the one before has ended, whole and well."""

from __future__ import annotations

from typing import Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from flows.direct_run import run_directly
from orchestrator.submission import cancel_children, flow_submitter


@flow(name="pattern-batched", on_cancellation=[cancel_children], on_crashed=[cancel_children])
async def batched(
    items: Annotated[int, Field(ge=1, le=1000)] = 4, batch_size: Annotated[int, Field(ge=1, le=100)] = 2
) -> dict[str, str]:
    """Run work-item for every item, batch by batch, with a checkpoint after each.

    Args:
        items: how many runs.
        batch_size: how many of them at a time.

    Returns:
        the final state's name of each run, by run id.
    """
    async with flow_submitter("work-item") as etl:
        for first in range(0, items, batch_size):
            await etl.map(item=range(first, min(first + batch_size, items)))
            await etl.wait(show_summary=False)
            etl.raise_for_failures()  # what comes after a failed batch is not created
            get_run_logger().info("%d of %d items done", len(etl.succeeded), items)
        return await etl.wait()


if __name__ == "__main__":
    run_directly(batched)
