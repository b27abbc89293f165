"""One run that all depends on, among others: if it fails, the others are not waited for, but cancelled."""

from __future__ import annotations

from typing import Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from flows.direct_run import run_directly
from flows.patterns.work_item import Fails
from orchestrator.submission import cancel_children, flow_submitter


@flow(name="pattern-critical", on_cancellation=[cancel_children], on_crashed=[cancel_children])
async def critical(others: Annotated[int, Field(ge=0, le=100)] = 2, critical_fails: Fails = "never") -> dict[str, str]:
    """Run work-item for a critical item and for others, and look at each as it ends.

    Args:
        others: how many runs besides the critical one.
        critical_fails: whether that one fails.

    Returns:
        the final state's name of each run, by run id.
    """
    async with flow_submitter("work-item") as etl:
        critical_id = await etl.submit(item=0, fails=critical_fails)  # first in the queue
        await etl.submit_many([{"item": item} for item in range(1, others + 1)])
        async for outcome in etl.as_completed():
            if outcome.id == critical_id and not outcome.succeeded:
                get_run_logger().critical("The critical run has failed: %s", outcome.url)
                etl.raise_for_failures()  # leaving the block by an exception cancels the others
    return etl.results


if __name__ == "__main__":
    run_directly(critical)
