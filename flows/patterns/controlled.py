"""All runs at once, and the server lets their `database` tasks through a few at a time.

The limit belongs to the tag of the task (`concurrency_limits` of the environment's file): it holds across runs, flows
and machines. A run whose task waits is Running, and holds its process and its place; `max_in_flight` keeps most runs
from being created before there is something for them to do.
"""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.direct_run import run_directly
from orchestrator.submission import cancel_children, flow_submitter


@flow(name="pattern-controlled", on_cancellation=[cancel_children], on_crashed=[cancel_children])
async def controlled(
    items: Annotated[int, Field(ge=1, le=1000)] = 4, in_flight: Annotated[int, Field(ge=1, le=100)] = 3
) -> dict[str, str]:
    """Run work-item for every item, a few in flight, under the limit of its task's tag.

    Args:
        items: how many runs.
        in_flight: how many of them may be created and not ended.

    Returns:
        the final state's name of each run, by run id.
    """
    async with flow_submitter("work-item", max_in_flight=in_flight) as etl:
        await etl.map(item=range(items), seconds=1)
        results = await etl.wait()
    etl.raise_for_failures()
    return results


if __name__ == "__main__":
    run_directly(controlled)
