"""What people see of the ETL: the report, and what a direct run prints."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import pytest
from prefect.settings import PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

from flows.direct_run import run_directly, shown_part
from flows.final_etl import bar_chart, summary
from flows.warehouse import CategoryTotal, Load

LOADS = [
    Load(table_number=0, extracted=2000, missing=1, negative=2, duplicates=3, loaded=1994),
    Load(table_number=1, extracted=100, missing=0, negative=0, duplicates=0, loaded=100),
]
TOTALS = [
    CategoryTotal(category="books & maps", sales=1500, customers=7, amount=123_456_78),
    CategoryTotal(category="music", sales=594, customers=5, amount=61_728_39),
]


def test_the_summary_has_counts_totals_and_a_chart() -> None:
    text = summary(LOADS, TOTALS)

    assert "2 tables, 2,094 of 2,100 rows loaded" in text
    assert "| books & maps | 1,500 | 7 | 123,456.78 |" in text
    image = re.search(r"!\[.+\]\(data:image/svg\+xml;base64,([^)]+)\)", text)
    assert image and base64.b64decode(image[1]).decode() == bar_chart(TOTALS)


def test_bars_are_as_long_as_their_amounts() -> None:
    chart = ElementTree.fromstring(bar_chart(TOTALS))
    widths = [int(bar.attrib["width"]) for bar in chart.iter("{http://www.w3.org/2000/svg}rect")]

    assert widths == [420, 210]


@pytest.mark.parametrize("totals", [[], [CategoryTotal(category="books", sales=1, customers=1, amount=0)]])
def test_a_chart_without_amounts_is_still_an_image(totals: list[CategoryTotal]) -> None:
    assert ElementTree.fromstring(bar_chart(totals)).tag.endswith("svg")


@pytest.mark.parametrize(("key", "shown"), [("pnu_0123456789abcdef", "pnu_..."), ("12345678", "12..."), ("abc", "...")])
def test_a_key_is_shown_by_its_first_characters_at_most(key: str, shown: str) -> None:
    assert shown_part(key) == shown


def test_a_direct_run_names_its_server_without_credentials(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {
        PREFECT_API_URL: "https://user:hunter2@prefect.example/api",
        PREFECT_API_KEY: "pnu_0123456789abcdef",
    }
    with temporary_settings(settings):
        run_directly(lambda: "done")

    assert capsys.readouterr().out.splitlines() == [
        "Prefect server: https://prefect.example/api",
        "Using API key: pnu_...",
        "done",
    ]


def test_a_direct_run_awaits_an_async_flow(capsys: pytest.CaptureFixture[str]) -> None:
    async def flow() -> str:
        return "awaited"

    run_directly(flow)

    assert capsys.readouterr().out.endswith("awaited\n")
