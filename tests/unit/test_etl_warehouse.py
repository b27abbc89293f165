"""The warehouse on SQLite files: what is generated, what cleaning drops, what a load leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError

from flows import warehouse
from flows.warehouse import CategoryTotal, CleanSales, Load, RowCountMismatch, Sale, SourceNotReady

NOON = datetime(2023, 6, 1, 12)  # noqa: DTZ001 - as in the source


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Engine]:
    with warehouse.connect(make_url(f"sqlite:///{tmp_path}/source.db")) as engine:
        yield engine


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Engine]:
    with warehouse.connect(make_url(f"sqlite:///{tmp_path}/target.db")) as engine:
        yield engine


def sale(number: int, amount: int | None = 100, *, customer: str = "ann", category: str = "books") -> Sale:
    return Sale(number, customer, amount, category, NOON)


def load(engine: Engine, table: int, sales: list[Sale]) -> Load:
    cleaned = warehouse.clean(sales)
    return warehouse.load(engine, table, cleaned, warehouse.aggregate(cleaned.kept))


def loaded_ids(engine: Engine, table: int) -> list[int]:
    query = text("SELECT id FROM sales WHERE table_number = :table ORDER BY id")
    with engine.connect() as connection:
        return list(connection.execute(query, {"table": table}).scalars())


# --- where the databases are -----------------------------------------------------------------------------


def test_databases_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://reader@db/source")
    monkeypatch.setenv("TARGET_DATABASE_URL", "postgresql://writer@db/target")

    assert warehouse.source_url() == make_url("postgresql://reader@db/source")
    assert warehouse.target_url() == make_url("postgresql://writer@db/target")


def test_databases_are_files_in_the_working_directory_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with warehouse.connect(warehouse.source_url()) as engine, engine.connect():
        pass

    assert (tmp_path / "data" / "source.db").exists()


def test_a_described_url_holds_no_secret() -> None:
    url = make_url("postgresql://etl:hunter2@db:5432/sales?password=hunter2&sslmode=require")

    assert warehouse.describe(url) == "postgresql://etl:***@db:5432/sales"


# --- the source ------------------------------------------------------------------------------------------


def test_generated_rows_depend_on_table_and_seed_only() -> None:
    assert warehouse.generate(3) == warehouse.generate(3)
    assert warehouse.generate(3) != warehouse.generate(3, seed=1)
    assert warehouse.generate(3)[:100] != warehouse.generate(4)[:100]


@pytest.mark.parametrize("table", range(warehouse.TABLES))
def test_every_table_has_thousands_of_rows_and_every_kind_of_dirt(table: int) -> None:
    cleaned = warehouse.clean(warehouse.generate(table))

    assert cleaned.extracted == warehouse.expected_rows(table) >= 2000
    assert cleaned.missing and cleaned.negative and cleaned.duplicates
    assert len(cleaned.kept) > 0.85 * cleaned.extracted


def test_filling_the_source_twice_changes_nothing(source: Engine) -> None:
    assert warehouse.fill_source(source) == [f"table_{table:02d}" for table in range(20)]
    before = warehouse.extract(source, 7)

    assert warehouse.fill_source(source) == []
    assert warehouse.extract(source, 7) == before == warehouse.generate(7)


def test_an_incomplete_table_is_filled_again(source: Engine) -> None:
    warehouse.fill_source(source)
    with warehouse.writing(source) as connection:
        connection.execute(text("DELETE FROM table_05 WHERE id > 10"))
        connection.execute(text("DROP TABLE table_06"))

    assert warehouse.fill_source(source) == ["table_05", "table_06"]
    assert warehouse.extract(source, 5) == warehouse.generate(5)


def test_a_table_appears_whole_or_not_at_all(source: Engine) -> None:
    with pytest.raises(ZeroDivisionError), warehouse.writing(source) as connection:
        connection.execute(text("CREATE TABLE table_00 (id INTEGER)"))
        connection.execute(text("INSERT INTO table_00 VALUES (1)"))
        _ = 1 / 0

    assert inspect(source).get_table_names() == []


def test_readers_never_see_a_half_filled_table(source: Engine) -> None:
    with ThreadPoolExecutor() as threads:
        filling = threads.submit(warehouse.fill_source, source)
        seen = {warehouse.source_rows(source, 19)}
        while not filling.done():
            seen.add(warehouse.source_rows(source, 19))
        filling.result()
    seen.add(warehouse.source_rows(source, 19))

    assert seen <= {0, warehouse.expected_rows(19)}
    assert warehouse.expected_rows(19) in seen


def test_a_table_that_is_not_there_yet_says_what_to_do(source: Engine) -> None:
    with pytest.raises(SourceNotReady, match=r"table_02 .* has 0 of 2200 rows. Run pre-etl-job"):
        warehouse.extract(source, 2)


def test_an_unreachable_database_is_not_mistaken_for_an_unfilled_one(tmp_path: Path) -> None:
    (tmp_path / "source.db").write_text("this is not a database, whatever its name says")
    url = make_url(f"sqlite:///{tmp_path}/source.db")
    with warehouse.connect(url) as engine, pytest.raises(DatabaseError, match="not a database"):
        warehouse.extract(engine, 0)


@pytest.mark.parametrize("table", [-1, 20])
def test_there_are_twenty_tables(table: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 19"):
        warehouse.table_name(table)


# --- cleaning and aggregating ----------------------------------------------------------------------------


def test_cleaning_drops_missing_negative_and_repeated_rows() -> None:
    good, other = sale(1), sale(2, 0, customer="bob")
    cleaned = warehouse.clean([good, other, sale(3, None), sale(4, -100), sale(5), sale(6)])

    assert cleaned == CleanSales(kept=(good, other), missing=1, negative=1, duplicates=2)
    assert cleaned.extracted == 6


def test_rows_that_differ_in_one_column_are_not_duplicates() -> None:
    sales = [
        sale(1),
        sale(2, 101),
        sale(3, customer="bob"),
        sale(4, category="music"),
        replace(sale(5), created_at=datetime(2024, 1, 1)),  # noqa: DTZ001
    ]

    assert warehouse.clean(sales).kept == tuple(sales)


def test_totals_count_sales_and_customers_by_category() -> None:
    sales = [sale(1, 10), sale(2, 20), sale(3, 30, customer="bob"), sale(4, 5, category="art")]

    assert warehouse.aggregate(sales) == [
        CategoryTotal(category="art", sales=1, customers=1, amount=5),
        CategoryTotal(category="books", sales=3, customers=2, amount=60),
    ]


# --- the target ------------------------------------------------------------------------------------------


def test_a_load_brings_rows_totals_and_counts(target: Engine) -> None:
    counts = load(target, 4, [sale(1, 10), sale(2, None), sale(3, 20)])

    assert counts == Load(table_number=4, extracted=3, missing=1, negative=0, duplicates=0, loaded=2)
    assert warehouse.check_target(target) == [counts]
    assert loaded_ids(target, 4) == [1, 3]
    assert warehouse.totals_by_category(target) == [CategoryTotal(category="books", sales=2, customers=1, amount=30)]


def test_a_repeated_load_replaces_its_own_table_only(target: Engine) -> None:
    load(target, 1, [sale(1, 10), sale(2, 20)])
    load(target, 2, [sale(1, 99)])
    load(target, 1, [sale(2, 20), sale(3, 30)])

    assert (loaded_ids(target, 1), loaded_ids(target, 2)) == ([2, 3], [1])
    assert [counts.loaded for counts in warehouse.check_target(target)] == [2, 1]


def test_an_empty_table_can_be_loaded(target: Engine) -> None:
    assert load(target, 0, []).loaded == 0
    assert warehouse.totals_by_category(target) == []


def test_a_load_that_does_not_add_up_leaves_the_target_as_it_was(target: Engine) -> None:
    before = load(target, 1, [sale(1, 10)])
    with pytest.raises(RowCountMismatch, match="table_01"):
        warehouse.load(target, 1, warehouse.clean([sale(7), sale(8, 5)]), totals=[])

    assert warehouse.check_target(target) == [before]
    assert loaded_ids(target, 1) == [1]


@pytest.mark.parametrize("damage", ["DELETE FROM sales WHERE id = 1", "DELETE FROM category_totals"])
def test_rows_lost_later_are_noticed(target: Engine, damage: str) -> None:
    load(target, 1, [sale(1, 10), sale(2, 20)])
    with warehouse.writing(target) as connection:
        connection.execute(text(damage))

    with pytest.raises(RowCountMismatch, match="table_01: kept 2 of 2 rows, loaded 2"):
        warehouse.check_target(target)


def test_loads_at_the_same_time_do_not_disturb_each_other(target: Engine) -> None:
    def generated(table: int) -> Load:
        with warehouse.connect(target.url) as engine:
            return load(engine, table, warehouse.generate(table))

    with ThreadPoolExecutor(max_workers=8) as threads:
        loads = list(threads.map(generated, range(8)))

    assert warehouse.check_target(target) == loads


# --- cleaning up -----------------------------------------------------------------------------------------


def test_cleanup_drops_staging_tables_and_nothing_else(target: Engine) -> None:
    load(target, 1, [sale(1)])
    load(target, 12, [sale(1)])

    assert warehouse.drop_staging(target) == ["staging_01", "staging_12"]
    assert warehouse.drop_staging(target) == []
    assert len(warehouse.check_target(target)) == 2


def test_the_audit_records_what_the_target_holds(target: Engine) -> None:
    load(target, 1, [sale(1), sale(2, 5)])
    first = warehouse.record_audit(target)
    warehouse.drop_staging(target)
    second = warehouse.record_audit(target)

    assert (first.tables, first.sales, first.staging) == (1, 2, 1)
    assert (second.tables, second.sales, second.staging) == (1, 2, 0)
    with target.connect() as connection:
        assert connection.execute(text("SELECT staging FROM audits ORDER BY id")).scalars().all() == [1, 0]


def test_the_audit_refuses_wrong_row_counts(target: Engine) -> None:
    load(target, 1, [sale(1)])
    with warehouse.writing(target) as connection:
        row = {"table_number": 1, "id": 2, "customer": "x", "category": "y", "created_at": NOON}
        connection.execute(insert(warehouse._sales), row)

    with pytest.raises(RowCountMismatch):
        warehouse.record_audit(target)
