"""Final ETL: check what was loaded and report it as artifacts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from xml.sax.saxutils import escape

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows import warehouse
from flows.direct_run import run_directly
from flows.warehouse import CategoryTotal, Load

BAR_WIDTH, BAR_HEIGHT, LABEL_WIDTH, AMOUNT_WIDTH = 420, 26, 90, 120


class NothingLoaded(Exception):
    """The target is empty: there is nothing to report."""


@task(name="check-loads", retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def check_loads() -> list[Load]:
    """Check that the target holds exactly the rows that its loads counted."""
    with warehouse.connect(warehouse.target_url()) as engine:
        loads = warehouse.check_target(engine)
    if not loads:
        raise NothingLoaded("The target is empty. Run sub-etl-job to load tables.")
    return loads


@task(name="total-by-category", retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def total_by_category() -> list[CategoryTotal]:
    """Totals over all loaded tables."""
    with warehouse.connect(warehouse.target_url()) as engine:
        return warehouse.totals_by_category(engine)


@task(name="write-report", cache_policy=NO_CACHE)
def write_report(loads: Sequence[Load], totals: Sequence[CategoryTotal]) -> None:
    """Publish the row counts as a table, and the totals as text with a chart."""
    create_table_artifact(
        key="etl-row-counts",
        table=[_row(counts) for counts in loads],
        description="Rows of each table: extracted, dropped in cleaning, loaded",
    )
    create_markdown_artifact(
        key="etl-summary",
        markdown=summary(loads, totals),
        description="What the ETL loaded, by category",
    )


def _row(counts: Load) -> dict[str, str | int]:
    return {
        "table": warehouse.table_name(counts.table_number),
        "extracted": counts.extracted,
        "without amount": counts.missing,
        "negative": counts.negative,
        "duplicates": counts.duplicates,
        "loaded": counts.loaded,
    }


def summary(loads: Sequence[Load], totals: Sequence[CategoryTotal]) -> str:
    """The report in markdown."""
    extracted = sum(counts.extracted for counts in loads)
    loaded = sum(counts.loaded for counts in loads)
    image = base64.b64encode(bar_chart(totals).encode()).decode()
    rows = [
        f"| {total.category} | {total.sales:,} | {total.customers:,} | {_money(total.amount)} |" for total in totals
    ]
    return "\n".join(
        [
            "# ETL summary",
            "",
            f"{len(loads)} tables, {loaded:,} of {extracted:,} rows loaded; row counts checked.",
            "",
            f"![Amount by category](data:image/svg+xml;base64,{image})",
            "",
            "| category | sales | customers | amount |",
            "|---|--:|--:|--:|",
            *rows,
        ]
    )


def bar_chart(totals: Sequence[CategoryTotal]) -> str:
    """Amounts by category as horizontal bars, in SVG."""
    largest = max((total.amount for total in totals), default=0) or 1
    bars = [
        _bar(total, top=number * BAR_HEIGHT, width=round(BAR_WIDTH * total.amount / largest))
        for number, total in enumerate(totals)
    ]
    size = f'width="{LABEL_WIDTH + BAR_WIDTH + AMOUNT_WIDTH}" height="{BAR_HEIGHT * len(totals)}"'
    style = 'font-family="sans-serif" font-size="13" fill="#64748b"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{"".join(bars)}</svg>'


def _bar(total: CategoryTotal, *, top: int, width: int) -> str:
    baseline = top + BAR_HEIGHT * 0.7
    return (
        f'<text x="0" y="{baseline:g}">{escape(total.category)}</text>'
        f'<rect x="{LABEL_WIDTH}" y="{top + 3}" width="{width}" height="{BAR_HEIGHT - 6}" fill="#3b82f6"/>'
        f'<text x="{LABEL_WIDTH + width + 8}" y="{baseline:g}">{_money(total.amount)}</text>'
    )


def _money(cents: int) -> str:
    return f"{cents / 100:,.2f}"


@flow(name="final-etl-job")
def final_etl() -> dict[str, int]:
    """Check the row counts of all loads, total them by category, and publish the report as artifacts.

    Returns:
        how many tables and rows the target holds, and what they amount to in cents.
    """
    loads = check_loads()
    totals = total_by_category()
    write_report(loads, totals)
    loaded = sum(counts.loaded for counts in loads)
    get_run_logger().info("Reported %d tables with %d rows", len(loads), loaded)
    return {"tables": len(loads), "rows": loaded, "amount": sum(total.amount for total in totals)}


if __name__ == "__main__":
    run_directly(final_etl)
