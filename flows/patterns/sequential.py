"""One run after another, each with what the one before has returned."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.direct_run import run_directly
from orchestrator.submission import cancel_children, flow_submitter


@flow(name="pattern-sequential", on_cancellation=[cancel_children], on_crashed=[cancel_children])
async def sequential(steps: Annotated[int, Field(ge=1, le=20)] = 3) -> int:
    """Run work-item step by step, and stop at the first failure.

    Args:
        steps: how many runs.

    Returns:
        what the last one has returned.
    """
    value = 1
    async with flow_submitter("work-item") as etl:
        for _ in range(steps):
            run_id = await etl.submit(item=value)
            await etl.wait(show_summary=False)
            etl.raise_for_failures()
            value = (await etl.results())[run_id]
    return value


if __name__ == "__main__":
    run_directly(sequential)
