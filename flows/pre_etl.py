"""Pre-ETL: make sure that there is a source to read and a target to write."""

from __future__ import annotations

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import warehouse
from flows.direct_run import run_directly


@task(name="fill-source", retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def fill_source() -> list[str]:
    """Generate the source tables that are missing or incomplete."""
    with warehouse.connect(warehouse.source_url()) as engine:
        get_run_logger().info("Source: %s", warehouse.describe(engine.url))
        return warehouse.fill_source(engine)


@task(name="validate-source", cache_policy=NO_CACHE)
def validate_source() -> int:
    """Check that every source table has all of its rows, and count them."""
    with warehouse.connect(warehouse.source_url()) as engine:
        for table in range(warehouse.TABLES):
            warehouse.check_source(engine, table)
    return sum(warehouse.expected_rows(table) for table in range(warehouse.TABLES))


@task(name="prepare-target", retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def prepare_target() -> None:
    """Create the target's tables where they are missing."""
    with warehouse.connect(warehouse.target_url()) as engine:
        get_run_logger().info("Target: %s", warehouse.describe(engine.url))
        warehouse.prepare_target(engine)


@flow(name="pre-etl-job")
def pre_etl() -> dict[str, int]:
    """Fill the source where it is missing or incomplete, validate it, and prepare the target.

    Returns:
        how many tables and rows the source has, and how many tables had to be filled.
    """
    filled = fill_source()
    rows = validate_source()
    prepare_target()
    get_run_logger().info("Source has %d tables with %d rows, %d of them new", warehouse.TABLES, rows, len(filled))
    return {"tables": warehouse.TABLES, "rows": rows, "filled": len(filled)}


if __name__ == "__main__":
    run_directly(pre_etl)
