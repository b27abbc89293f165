"""Reading a table from the source, as tasks that several flows share."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import warehouse
from flows.warehouse import Sale


# Not a part of sql_query: a task holds its slot of the `database` limit while it waits for its next retry, and a
# table that is not there yet must not keep others from being read.
@task(name="wait-for-source", retries=60, retry_delay_seconds=3, cache_policy=NO_CACHE)
def wait_for_source(table: int) -> None:
    """Retry, for three minutes, until pre-etl-job has filled the source table."""
    with warehouse.connect(warehouse.source_url()) as engine:
        warehouse.check_source(engine, table)


@task(name="sql-query", tags=["database"], retries=3, retry_delay_seconds=5, cache_policy=NO_CACHE)
def sql_query(table: int) -> list[Sale]:
    """Read all rows of a source table. The server lets three of these run at a time, by their tag."""
    logger = get_run_logger()
    with warehouse.connect(warehouse.source_url()) as engine:
        logger.info("Reading %s from %s", warehouse.table_name(table), warehouse.describe(engine.url))
        sales = warehouse.extract(engine, table)
    logger.info("Read %d rows", len(sales))
    return sales
