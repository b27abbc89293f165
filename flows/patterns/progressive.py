"""A few first, and all others only if these went well."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.direct_run import run_directly
from flows.patterns.work_item import Fails
from orchestrator.submission import cancel_children, flow_submitter


@flow(name="pattern-progressive", on_cancellation=[cancel_children], on_crashed=[cancel_children])
async def progressive(
    items: Annotated[int, Field(ge=1, le=1000)] = 3,
    first: Annotated[int, Field(ge=1, le=100)] = 1,
    first_fail: Fails = "never",
) -> dict[str, str]:
    """Run work-item for the first items, and for the others if those have completed.

    Args:
        items: how many runs in all.
        first: how many of them to try first.
        first_fail: whether these fail.

    Returns:
        the final state's name of each run, by run id.
    """
    async with flow_submitter("work-item") as etl:
        await etl.map(item=range(min(first, items)), fails=first_fail)
        await etl.wait(show_summary=False)
        etl.raise_for_failures()
        await etl.submit_many([{"item": item} for item in range(first, items)])
        return await etl.wait()  # for all, the first ones included


if __name__ == "__main__":
    run_directly(progressive)
