"""Production ETL in one process: parallel queries under a limit that the server keeps, then two cleanups in turn.

The `database` limit counts the tasks of all flows together, so this flow and process-table-etl share its slots.
"""

from __future__ import annotations

from typing import Annotated

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows import warehouse
from flows.direct_run import run_directly
from flows.extraction import sql_query
from flows.warehouse import Audit


@task(name="ensure-source", retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def ensure_source() -> list[str]:
    """Generate the source tables that are missing or incomplete."""
    with warehouse.connect(warehouse.source_url()) as engine:
        return warehouse.fill_source(engine)


@task(name="cleanup1", retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def cleanup1() -> list[str]:
    """Drop the staging tables of the target."""
    with warehouse.connect(warehouse.target_url()) as engine:
        return warehouse.drop_staging(engine)


@task(name="cleanup2", retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def cleanup2() -> Audit:
    """Check the target and record what it holds."""
    with warehouse.connect(warehouse.target_url()) as engine:
        return warehouse.record_audit(engine)


@flow(name="production-etl")
def production_etl(tables: Annotated[int, Field(ge=1, le=warehouse.TABLES)] = 20) -> dict[str, int]:
    """Query every table in parallel tasks, collect the results, then clean up in two steps.

    Args:
        tables: how many tables to query, starting with table 0.

    Returns:
        how many rows were read from each table, by the table's name.
    """
    ensure_source()
    futures = [sql_query.submit(table) for table in range(tables)]
    rows = {warehouse.table_name(table): len(future.result()) for table, future in enumerate(futures)}
    cleanup1()
    cleanup2()
    get_run_logger().info("Read %d rows from %d tables", sum(rows.values()), tables)
    return rows


if __name__ == "__main__":
    run_directly(production_etl)
