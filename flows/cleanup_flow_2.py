"""Second cleanup: audit what the target holds now."""

from __future__ import annotations

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import warehouse
from flows.direct_run import run_directly
from flows.warehouse import Audit


@task(name="record-audit", retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def record_audit() -> Audit:
    """Check the target's row counts and look for leftovers, and record what it holds."""
    with warehouse.connect(warehouse.target_url()) as engine:
        return warehouse.record_audit(engine)


@flow(name="cleanup-flow-2")
def cleanup_flow_2() -> dict[str, int]:
    """Check the row counts of all loads and whether staging tables are left, and write an audit row.

    Wrong row counts fail the run. Staging tables only warn: another load may be under way.

    Returns:
        how many tables, rows and staging tables the target holds.
    """
    logger = get_run_logger()
    audit = record_audit()
    logger.info("Audited %d tables with %d rows", audit.tables, audit.sales)
    if audit.staging:
        logger.warning("%d staging tables are there: another load is under way, or one failed", audit.staging)
    return {"tables": audit.tables, "sales": audit.sales, "staging": audit.staging}


if __name__ == "__main__":
    run_directly(cleanup_flow_2)
