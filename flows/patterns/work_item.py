"""The unit of work that the patterns fan out over: small, cheap, and it fails when it is told to."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from pydantic import Field

from flows.direct_run import run_directly

Fails = Literal["never", "once", "always"]


class ToldToFail(Exception):
    """The item was told to."""


@task(name="work", tags=["database"], cache_policy=NO_CACHE)
def work(item: int, seconds: float) -> int:
    """Sleep, and double the item. The server lets as many of these run at a time as the limit of their tag says."""
    time.sleep(seconds)
    return 2 * item


# The result is kept, so that the flow that submits can read it: `await etl.results()`.
@flow(name="work-item", flow_run_name="item-{item}", persist_result=True)
def work_item(item: int = 0, seconds: Annotated[float, Field(ge=0, le=60)] = 0.5, fails: Fails = "never") -> int:
    """Do a little work, or fail.

    Args:
        item: what to work on.
        seconds: how long it takes.
        fails: whether it fails; `once` means at its first attempt.

    Returns:
        twice the item.
    """
    if fails == "always" or (fails == "once" and flow_run.run_count == 1):
        raise ToldToFail(f"Item {item} was told to fail: {fails}.")
    return work(item, seconds)


if __name__ == "__main__":
    run_directly(work_item)
