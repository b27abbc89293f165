"""The ETL of one table: extract, clean, aggregate, load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows import warehouse
from flows.direct_run import run_directly
from flows.extraction import sql_query, wait_for_source
from flows.warehouse import CategoryTotal, CleanSales, Load, Sale


@task(name="clean", cache_policy=NO_CACHE)
def clean(sales: Sequence[Sale]) -> CleanSales:
    """Drop rows with missing or negative amounts, and repeated rows."""
    cleaned = warehouse.clean(sales)
    get_run_logger().info(
        "Kept %d of %d rows: %d without amount, %d negative, %d duplicates",
        len(cleaned.kept),
        cleaned.extracted,
        cleaned.missing,
        cleaned.negative,
        cleaned.duplicates,
    )
    return cleaned


@task(name="aggregate", cache_policy=NO_CACHE)
def aggregate(sales: CleanSales) -> list[CategoryTotal]:
    """Totals by category."""
    return warehouse.aggregate(sales.kept)


@task(name="load", retries=3, retry_delay_seconds=5, cache_policy=NO_CACHE)
def load(table: int, sales: CleanSales, totals: Sequence[CategoryTotal]) -> Load:
    """Replace the table's rows and totals in the target, and check the row counts."""
    with warehouse.connect(warehouse.target_url()) as engine:
        return warehouse.load(engine, table, sales, totals)


@flow(name="process-table-etl", flow_run_name="table-{table:02d}")
def process_table_etl(table: Annotated[int, Field(ge=0, lt=warehouse.TABLES)] = 0) -> dict[str, int]:
    """Extract one source table, clean it, aggregate it, and load it into the target.

    Args:
        table: number of the source table, from 0 to 19.

    Returns:
        the row counts of the load.
    """
    wait_for_source(table)
    sales = clean(sql_query(table))
    counts = load(table, sales, aggregate(sales))
    get_run_logger().info("Loaded %d rows of %s", counts.loaded, warehouse.table_name(table))
    return asdict(counts)


if __name__ == "__main__":
    run_directly(process_table_etl)
