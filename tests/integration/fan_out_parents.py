"""Parents of a fan-out that run in processes of their own."""

from __future__ import annotations

import os
import signal

from prefect import flow, task

from orchestrator.submission import flow_submitter


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
