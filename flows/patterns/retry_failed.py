"""What to do next depends on what became of the runs: the failed ones run again, the completed ones do not."""

from __future__ import annotations

from typing import Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from flows.direct_run import run_directly
from flows.patterns.work_item import Fails
from orchestrator.submission import cancel_children, flow_submitter


# If this flow itself is retried, from the UI for one, its failed runs run again, too.
@flow(name="pattern-retry-failed", on_cancellation=[cancel_children], on_crashed=[cancel_children])
async def retry_failed(items: Annotated[int, Field(ge=1, le=1000)] = 3, last_fails: Fails = "once") -> dict[str, str]:
    """Run work-item for every item, and those that have failed once more.

    Args:
        items: how many runs.
        last_fails: whether the last of them fails.

    Returns:
        the final state's name of each run, by run id.
    """
    fails = [last_fails if item == items - 1 else "never" for item in range(items)]
    async with flow_submitter("work-item", idempotency="retry-failed") as etl:
        await etl.map(item=range(items), fails=fails)
        await etl.wait(show_summary=False)
        if again := await etl.retry_failed():
            get_run_logger().warning("Running %d of %d once more", len(again), items)
        results = await etl.wait()
    etl.raise_for_failures()  # names each run that has failed twice, and why
    return results


if __name__ == "__main__":
    run_directly(retry_failed)
