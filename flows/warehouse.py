"""The only door to the databases: a source of twenty raw sales tables, and the target that reports read.

`DATABASE_URL` names the source and `TARGET_DATABASE_URL` the target, as SQLAlchemy writes them; without them both
are SQLite files in `data/` under the working directory. Nothing here knows Prefect.

Source: `table_00` ... `table_19`, generated from a fixed seed, with missing, negative and repeated amounts.
Target: `sales` (clean rows), `category_totals` (aggregates), `loads` (the row counts of each load), `audits`, and one
`staging_NN` for each table while it is being loaded.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    literal,
    select,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

TABLES = 20
SEED = 20231101
CATEGORIES = ("books", "garden", "kitchen", "music", "sports")
FIRST_DAY = datetime(2023, 1, 1)  # noqa: DTZ001 - the source has no time zones, as sources do
STAGING_PREFIX = "staging_"
BUSY_TIMEOUT_MS = 30_000  # how long SQLite waits for another process's write before it gives up


class SourceNotReady(Exception):
    """The source has no such table, or not all of its rows, yet."""


class RowCountMismatch(Exception):
    """Rows were lost or made up on the way."""


@dataclass(frozen=True, slots=True)
class Sale:
    """One row of a source table."""

    id: int
    customer: str
    amount: int | None  # in cents; None and negative are dirt
    category: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanSales:
    """The rows worth keeping, and how many were dropped for which reason."""

    kept: tuple[Sale, ...]
    missing: int  # without an amount
    negative: int
    duplicates: int  # equal to an earlier row in all but the id

    @property
    def extracted(self) -> int:
        return len(self.kept) + self.missing + self.negative + self.duplicates


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryTotal:
    """What one table sold in one category."""

    category: str
    sales: int
    customers: int
    amount: int  # in cents


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The row counts of one table's latest load."""

    table_number: int
    extracted: int
    missing: int
    negative: int
    duplicates: int
    loaded: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What the target held at one moment."""

    audited_at: datetime
    tables: int
    sales: int
    staging: int  # staging tables that were still there, or there again: another load may be under way


# ---------------------------------------------------------------------------------------------------------
# Engines
# ---------------------------------------------------------------------------------------------------------


def source_url() -> URL:
    """Where the raw tables are: DATABASE_URL."""
    return make_url(os.environ.get("DATABASE_URL") or "sqlite:///data/source.db")


def target_url() -> URL:
    """Where clean rows go: TARGET_DATABASE_URL."""
    return make_url(os.environ.get("TARGET_DATABASE_URL") or "sqlite:///data/target.db")


def describe(url: URL) -> str:
    """A URL that may be logged: the password hidden, the query left out, as it can hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


@contextmanager
def connect(url: URL) -> Iterator[Engine]:
    """An engine for one piece of work; its connections are closed at the end."""
    engine = _sqlite_engine(url) if url.get_backend_name() == "sqlite" else create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes: everything in it happens, or nothing."""
    with engine.execution_options(writes=True).begin() as connection:
        yield connection


def _sqlite_engine(url: URL) -> Engine:
    """An engine that lets many processes use one SQLite file."""
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=NullPool)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Python's own transaction handling would leave CREATE TABLE outside of the transaction.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    # With a write-ahead log readers and a writer do not wait for each other. The mode stays with the file; where
    # another process is switching it at this moment, this one need not.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once, without waiting, when another has written in
    # between. So those that write say so from the start.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


# ---------------------------------------------------------------------------------------------------------
# The source
# ---------------------------------------------------------------------------------------------------------


def table_name(table: int) -> str:
    """`table_07` for 7.

    Raises:
        ValueError: there is no such table.
    """
    if not 0 <= table < TABLES:
        raise ValueError(f"table must be between 0 and {TABLES - 1}, not {table}")
    return f"table_{table:02d}"


def expected_rows(table: int) -> int:
    """How many rows the source table has when it is complete."""
    return 2_000 + 100 * table


def generate(table: int, seed: int = SEED) -> list[Sale]:
    """The rows of a source table: always the same for the same table and seed.

    Of a hundred rows about two lack their amount, two have a negative one, and three repeat the row before them.
    """
    chance = random.Random(f"{seed}/{table}")
    sales: list[Sale] = []
    for number in range(1, expected_rows(table) + 1):
        dirt = chance.random()
        if sales and dirt < 0.03:
            sales.append(Sale(number, *astuple(sales[-1])[1:]))
            continue
        amount = None if dirt < 0.05 else chance.randint(100, 50_000) * (-1 if dirt < 0.07 else 1)
        customer = f"customer-{chance.randint(1, 400):03d}"
        created_at = FIRST_DAY + timedelta(minutes=chance.randrange(365 * 24 * 60))
        sales.append(Sale(number, customer, amount, chance.choice(CATEGORIES), created_at))
    return sales


def fill_source(engine: Engine) -> list[str]:
    """Generate those source tables that are missing or incomplete. Each appears whole or not at all.

    Returns:
        the names of the tables that were filled; none where the source was complete.
    """
    incomplete = [table for table in range(TABLES) if source_rows(engine, table) != expected_rows(table)]
    for table in incomplete:
        rows = [asdict(sale) for sale in generate(table)]
        definition = _source_table(table)
        with writing(engine) as connection:
            definition.drop(connection, checkfirst=True)
            definition.create(connection)
            connection.execute(insert(definition), rows)
    return [table_name(table) for table in incomplete]


def source_rows(engine: Engine, table: int) -> int:
    """How many rows a source table has; 0 where it does not exist."""
    if not inspect(engine).has_table(table_name(table)):
        return 0
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(_source_table(table))).scalar_one()


def extract(engine: Engine, table: int) -> list[Sale]:
    """All rows of a source table, in the order of their ids.

    Raises:
        SourceNotReady: the table is missing or incomplete.
    """
    check_source(engine, table)
    definition = _source_table(table)
    with engine.connect() as connection:
        rows = connection.execute(select(definition).order_by(definition.c.id)).all()
    return [Sale(*row) for row in rows]


def check_source(engine: Engine, table: int) -> None:
    """Raise SourceNotReady unless the source table is there with all of its rows."""
    rows, expected = source_rows(engine, table), expected_rows(table)
    if rows != expected:
        raise SourceNotReady(
            f"{table_name(table)} in {describe(engine.url)} has {rows} of {expected} rows. "
            "Run pre-etl-job to fill the source."
        )


def _source_table(table: int) -> Table:
    return Table(table_name(table), MetaData(), *_sale_columns())


def _sale_columns() -> list[Column[Any]]:
    return [
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("customer", String(40), nullable=False),
        Column("amount", Integer, nullable=True),
        Column("category", String(40), nullable=False),
        Column("created_at", DateTime, nullable=False),
    ]


# ---------------------------------------------------------------------------------------------------------
# Between source and target
# ---------------------------------------------------------------------------------------------------------


def clean(sales: Sequence[Sale]) -> CleanSales:
    """Drop rows without an amount, with a negative one, and those that repeat an earlier row under a new id."""
    kept: list[Sale] = []
    seen: set[tuple[str, int, str, datetime]] = set()
    missing = negative = duplicates = 0
    for sale in sales:
        if sale.amount is None:
            missing += 1
        elif sale.amount < 0:
            negative += 1
        elif (content := (sale.customer, sale.amount, sale.category, sale.created_at)) in seen:
            duplicates += 1
        else:
            seen.add(content)
            kept.append(sale)
    return CleanSales(kept=tuple(kept), missing=missing, negative=negative, duplicates=duplicates)


def aggregate(sales: Sequence[Sale]) -> list[CategoryTotal]:
    """Totals of clean rows by category, in alphabetical order."""
    by_category: dict[str, list[Sale]] = {}
    for sale in sales:
        by_category.setdefault(sale.category, []).append(sale)
    return [
        CategoryTotal(
            category=category,
            sales=len(group),
            customers=len({sale.customer for sale in group}),
            amount=sum(sale.amount or 0 for sale in group),
        )
        for category, group in sorted(by_category.items())
    ]


# ---------------------------------------------------------------------------------------------------------
# The target
# ---------------------------------------------------------------------------------------------------------

_target = MetaData()

_sales = Table(
    "sales",
    _target,
    Column("table_number", Integer, primary_key=True, autoincrement=False),
    *_sale_columns(),
)
_category_totals = Table(
    "category_totals",
    _target,
    Column("table_number", Integer, primary_key=True, autoincrement=False),
    Column("category", String(40), primary_key=True),
    Column("sales", Integer, nullable=False),
    Column("customers", Integer, nullable=False),
    Column("amount", Integer, nullable=False),
)
_loads = Table(
    "loads",
    _target,
    Column("table_number", Integer, primary_key=True, autoincrement=False),
    Column("extracted", Integer, nullable=False),
    Column("missing", Integer, nullable=False),
    Column("negative", Integer, nullable=False),
    Column("duplicates", Integer, nullable=False),
    Column("loaded", Integer, nullable=False),
)
_audits = Table(
    "audits",
    _target,
    Column("id", Integer, primary_key=True),
    Column("audited_at", DateTime(timezone=True), nullable=False),
    Column("tables", Integer, nullable=False),
    Column("sales", Integer, nullable=False),
    Column("staging", Integer, nullable=False),
)


def prepare_target(engine: Engine) -> None:
    """Create those target tables that are missing."""
    with writing(engine) as connection:
        _target.create_all(connection)


def load(engine: Engine, table: int, sales: CleanSales, totals: Sequence[CategoryTotal]) -> Load:
    """Put one table's clean rows and totals into the target, in place of those of an earlier load.

    The rows are written to a staging table first, so that the transaction that others wait for is a short one.

    Raises:
        RowCountMismatch: the target does not hold exactly the rows given; it is left as it was.
    """
    prepare_target(engine)
    staging = _stage(engine, table, sales.kept)
    counts = Load(
        table_number=table,
        extracted=sales.extracted,
        missing=sales.missing,
        negative=sales.negative,
        duplicates=sales.duplicates,
        loaded=len(sales.kept),
    )
    with writing(engine) as connection:
        for definition in (_sales, _category_totals, _loads):
            connection.execute(delete(definition).where(definition.c.table_number == table))
        columns = [literal(table).label("table_number"), *staging.columns]
        connection.execute(insert(_sales).from_select(_sales.columns.keys(), select(*columns)))
        if totals:
            rows = [{"table_number": table, **asdict(total)} for total in totals]
            connection.execute(insert(_category_totals), rows)
        connection.execute(insert(_loads), asdict(counts))
        _check_load(connection, counts)
    return counts


def _stage(engine: Engine, table: int, sales: Sequence[Sale]) -> Table:
    staging = Table(f"{STAGING_PREFIX}{table:02d}", MetaData(), *_sale_columns())
    with writing(engine) as connection:
        staging.drop(connection, checkfirst=True)
        staging.create(connection)
        if sales:
            connection.execute(insert(staging), [asdict(sale) for sale in sales])
    return staging


def check_target(engine: Engine) -> list[Load]:
    """Check that the target holds exactly the rows that its loads counted.

    Returns:
        the loads, by table number.

    Raises:
        RowCountMismatch: some rows are missing, surplus, or not in the totals.
    """
    prepare_target(engine)
    with engine.connect() as connection:
        rows = connection.execute(select(_loads).order_by(_loads.c.table_number)).mappings().all()
        loads = [Load(**row) for row in rows]
        for counts in loads:
            _check_load(connection, counts)
    return loads


def _check_load(connection: Connection, counts: Load) -> None:
    table = counts.table_number
    held = connection.execute(
        select(func.count()).select_from(_sales).where(_sales.c.table_number == table)
    ).scalar_one()
    totalled = connection.execute(
        select(func.coalesce(func.sum(_category_totals.c.sales), 0)).where(_category_totals.c.table_number == table)
    ).scalar_one()
    kept = counts.extracted - counts.missing - counts.negative - counts.duplicates
    if not held == totalled == kept == counts.loaded:
        raise RowCountMismatch(
            f"{table_name(table)}: kept {kept} of {counts.extracted} rows, loaded {counts.loaded}, "
            f"the target holds {held} and totals {totalled}."
        )


def totals_by_category(engine: Engine) -> list[CategoryTotal]:
    """Totals over all loaded tables, the category that sold most first.

    A customer who buys in several tables counts once.
    """
    customers = func.count(_sales.c.customer.distinct())
    query = select(_sales.c.category, func.count(), customers, func.sum(_sales.c.amount))
    with engine.connect() as connection:
        rows = connection.execute(query.group_by(_sales.c.category)).all()
    totals = [
        CategoryTotal(category=category, sales=sales, customers=buyers, amount=int(amount))
        for category, sales, buyers, amount in rows
    ]
    return sorted(totals, key=lambda total: (-total.amount, total.category))


# ---------------------------------------------------------------------------------------------------------
# Cleaning up
# ---------------------------------------------------------------------------------------------------------


def staging_tables(engine: Engine) -> list[str]:
    """The staging tables that loads have left in the target."""
    return [name for name in sorted(inspect(engine).get_table_names()) if name.startswith(STAGING_PREFIX)]


def drop_staging(engine: Engine) -> list[str]:
    """Drop all staging tables of the target.

    Returns:
        the names of the dropped tables.
    """
    names = staging_tables(engine)
    with writing(engine) as connection:
        for name in names:
            Table(name, MetaData()).drop(connection, checkfirst=True)
    return names


def record_audit(engine: Engine) -> Audit:
    """Check the row counts of all loads, and write down what the target holds.

    Raises:
        RowCountMismatch: the target does not hold what its loads counted.
    """
    loads = check_target(engine)
    audit = Audit(
        audited_at=datetime.now(UTC),
        tables=len(loads),
        sales=sum(counts.loaded for counts in loads),
        staging=len(staging_tables(engine)),
    )
    with writing(engine) as connection:
        connection.execute(insert(_audits), asdict(audit))
    return audit
