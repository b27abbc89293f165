"""Parents of a fan-out that run in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal

from prefect import flow, task

from orchestrator.submission import cancel_children, flow_submitter


@task
async def refresh(deployment: str, table: int) -> None:
    await flow_submitter(deployment).submit(table=table, names={"a", "b", "c", "d"})


@flow
async def killed_parent(deployment: str, tables: list[int], survives: int) -> None:
    """Submits in the flow and in tasks; is killed where it is run for the first time."""
    etl = flow_submitter(deployment)
    await etl.submit_many([{"table": table, "names": {"a", "b", "c"}} for table in tables])
    await refresh(deployment, table=1)
    await refresh(deployment, table=1)
    if survives < 0 or not os.environ.get("FAN_OUT_SURVIVES"):
        os.kill(os.getpid(), signal.SIGKILL)


@flow(name="leaving-parent", on_cancellation=[cancel_children])
async def leaving_parent(items: int) -> None:
    """Submits half of its items linked and half not; without a block nobody but its hook ends them."""
    linked, unlinked = (flow_submitter("work-item", link=link) for link in (True, False))
    for item in range(0, items, 2):
        await linked.submit(item=item, seconds=60)
        await unlinked.submit(item=item + 1, seconds=60)
    await asyncio.gather(linked.wait(), unlinked.wait())
