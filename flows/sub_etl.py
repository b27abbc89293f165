"""Sub-ETL: one deployed run for each table, then the cleanups."""

from __future__ import annotations

from typing import Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from flows.direct_run import run_directly
from orchestrator.submission import cancel_children, flow_submitter, trigger_subflow, wait_for_flow_runs

PROCESS_TABLE = "process-table-etl/process-table-etl-deployment"
CLEANUPS = ("cleanup-flow-1/cleanup-flow-1-deployment", "cleanup-flow-2/cleanup-flow-2-deployment")
POLL_SECONDS = 2


# One more try for the whole: the runs that completed are kept, only tables whose run failed or crashed run again.
@flow(
    name="sub-etl-job",
    retries=1,
    retry_delay_seconds=5,
    on_cancellation=[cancel_children],
    on_crashed=[cancel_children],
)
async def sub_etl(tables: Annotated[int, Field(ge=1, le=20)] = 20) -> dict[str, str]:
    """Run process-table-etl for every table at once, wait for all, then clean up in two steps.

    Args:
        tables: how many tables to process, starting with table 0; a small machine may take a few.

    Returns:
        the final state's name of each table's run, by run id.
    """
    async with flow_submitter(PROCESS_TABLE, idempotency="retry-failed") as etl:
        await etl.map(table=range(tables))
        results = await etl.wait(poll_interval=POLL_SECONDS)
    etl.raise_for_failures()
    for cleanup in CLEANUPS:
        await wait_for_flow_runs([await trigger_subflow(cleanup)], poll_interval=POLL_SECONDS)
    get_run_logger().info("Processed %d tables and cleaned up", tables)
    return results


if __name__ == "__main__":
    run_directly(sub_etl)
