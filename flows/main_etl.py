"""The whole ETL: two phases of deployed flows, the first in parallel.

phase 1   pre-etl-job  |  sub-etl-job (process-table-etl for each table, cleanup-flow-1, cleanup-flow-2)
phase 2   final-etl-job
"""

from __future__ import annotations

from typing import Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from flows.direct_run import run_directly
from orchestrator.submission import cancel_children, trigger_subflow, wait_for_flow_runs

PRE_ETL = "pre-etl-job/pre-etl-deployment"
SUB_ETL = "sub-etl-job/sub-etl-deployment"
FINAL_ETL = "final-etl-job/final-etl-deployment"
POLL_SECONDS = 2


@flow(name="main-etl-job", on_cancellation=[cancel_children], on_crashed=[cancel_children])
async def main_etl(tables: Annotated[int, Field(ge=1, le=20)] = 20) -> dict[str, str]:
    """Prepare the source and process its tables in parallel, then report.

    If a phase fails, the next one does not start, and this run fails naming the child and its reason.

    Args:
        tables: how many tables to process, starting with table 0; a small machine may take a few.

    Returns:
        the run ids of the phases, and the status.
    """
    logger = get_run_logger()
    logger.info("Phase 1: pre-etl and sub-etl in parallel")
    pre_etl = await trigger_subflow(PRE_ETL)
    sub_etl = await trigger_subflow(SUB_ETL, {"tables": tables})
    await wait_for_flow_runs([pre_etl, sub_etl], poll_interval=POLL_SECONDS)

    logger.info("Phase 2: final-etl")
    final_etl = await trigger_subflow(FINAL_ETL)
    await wait_for_flow_runs([final_etl], poll_interval=POLL_SECONDS)
    return {
        "pre_etl_run_id": pre_etl,
        "sub_etl_run_id": sub_etl,
        "final_etl_run_id": final_etl,
        "status": "completed",
    }


if __name__ == "__main__":
    run_directly(main_etl)
