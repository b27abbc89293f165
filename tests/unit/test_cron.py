"""Cron expressions: which field is at fault, and that a Prefect server agrees about every one of them."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prefect.client.schemas.schedules import CronSchedule
from pydantic import ValidationError

from orchestrator.cron import ALIASES, cron_fault, never_comes

ATOMS = (
    *("*", "0", "00", "1", "5", "6", "7", "8", "12", "13", "23", "24", "31", "32", "59", "60", "1970", "2099", "2100"),
    *("l", "L", "L5", "l6", "l7", "5#2", "7#2", "fri#1", "5#0", "5#6", "mon-fri#2", "*#2", "l#2", "a#1", "jan#1"),
    *("jan", "Feb", "dec", "mon", "SUN", "sat", "foo", "?", "h", "H", "r", "R", "h/5", "", "-", "/", "-1", "1-", "1#"),
    *(
        "*/",
        "*/5",
        "*/0",
        "*/*",
        "0/5",
        "1-5/2",
        "5-1/2",
        "sat-mon",
        "nov-feb",
        "0-0",
        "7-7",
        "5-7",
        "7-0",
        "1-l",
        "**",
    ),
    *("**", "1.5", "1e1", "0-59/61", "23-1/7", "1-5-7", "1/2/3", "٣"),
)
atoms = st.sampled_from(ATOMS) | st.integers(0, 70).map(str)
ranges = st.tuples(atoms, st.sampled_from("-/#"), atoms).map("".join)
stepped = st.tuples(st.integers(0, 61), st.integers(0, 61), st.integers(0, 30)).map(lambda n: f"{n[0]}-{n[1]}/{n[2]}")
items = atoms | ranges | stepped
columns = st.just("*") | items | st.lists(items, min_size=2, max_size=3).map(",".join)
expressions = st.integers(4, 8).flatmap(lambda size: st.lists(columns, min_size=size, max_size=size)).map(" ".join)
usual = st.lists(columns, min_size=5, max_size=5).map(" ".join)


def server_accepts(expression: str) -> bool:
    try:
        CronSchedule(cron=expression)
    except ValidationError:
        return False
    return True


class TestAgreementWithPrefect:
    @settings(max_examples=600, deadline=None)
    @example("0 0 30 2 *")  # February has none: accepted, and never due
    @example("* * * * */5,5#2")
    @example("* * * * mon-fri#2,mon")
    @example("* * 0 * * *")
    @example("* * * * 5-7 *")
    @given(expression=usual | expressions)
    def test_over_expressions_that_look_like_some(self, expression: str) -> None:
        assert (cron_fault(expression) is None) is server_accepts(expression)

    @settings(max_examples=200, deadline=None)
    @given(expression=st.text(max_size=30))
    def test_over_any_text(self, expression: str) -> None:
        assert (cron_fault(expression) is None) is server_accepts(expression)

    @pytest.mark.parametrize("alias", [*ALIASES, "@Daily", " @daily", "@reboot", "@every_minute"])
    def test_over_short_forms(self, alias: str) -> None:
        assert (cron_fault(alias) is None) is server_accepts(alias)

    @pytest.mark.parametrize("column", ["9" * 5000, f"1-{'9' * 5000}", f"*/{'9' * 5000}", "1," * 500 + "1", "(" * 500])
    def test_over_huge_columns(self, column: str) -> None:
        expression = f"{column} * * * *"
        assert (cron_fault(expression) is None) is server_accepts(expression)


class TestFieldAtFault:
    @pytest.mark.parametrize(
        ("expression", "name", "part", "reason"),
        [
            ("61 * * * *", "minute", "61", "61 lies outside 0-59"),
            ("0 24 * * *", "hour", "24", "24 lies outside 0-23"),
            ("0 0 0 * *", "day of month", "0", "0 lies outside 1-31"),
            ("0 0 * 13 *", "month", "13", "13 lies outside 1-12"),
            ("0 0 * Foo *", "month", "Foo", "'foo' is no number, nor one of jan, feb"),
            ("0 0 * * mun", "day of week", "mun", "nor one of sun, mon"),
            ("0 0 * * 8", "day of week", "8", "8 lies outside 0-6"),
            ("0 0 * * 5#6", "day of week", "5#6", "the number behind # is 1 to 5"),
            ("0 0 * * 5#2,mon", "day of week", "5#2,mon", "do not go together"),
            ("0 0 * * * 60", "second", "60", "60 lies outside 0-59"),
            ("0 0 * * * 0 1969", "year", "1969", "1969 lies outside 1970-2099"),
            ("*/0 * * * *", "minute", "*/0", "a step of 0 leads nowhere"),
            ("1,,2 * * * *", "minute", "1,,2", "a value is missing"),
            ("? * * * *", "minute", "?", "a day of month or a day of week only"),
            ("0 0 1,? * *", "day of month", "1,?", "a question mark stands alone"),
            ("H * * * *", "minute", "H", "unknown to Prefect"),
        ],
    )
    def test_is_named(self, expression: str, name: str, part: str, reason: str) -> None:
        fault = cron_fault(expression)
        assert fault is not None
        assert fault.reason.startswith(f"the {name} ")
        assert reason in fault.reason
        assert fault.part == part

    @pytest.mark.parametrize(("expression", "count"), [("", "0 fields"), ("5", "one field"), ("* * * *", "4 fields")])
    def test_too_few_fields(self, expression: str, count: str) -> None:
        fault = cron_fault(expression)
        assert fault is not None and f"it has {count} where five are needed: minute, hour" in fault.reason

    def test_the_nearest_short_form_is_suggested(self) -> None:
        fault = cron_fault("@dialy")
        assert fault is not None and "did you mean @daily" in fault.reason

    def test_no_reason_is_longer_than_a_line_or_two(self) -> None:
        fault = cron_fault(f"{'x' * 100_000} * * * *")
        assert fault is not None and len(fault.reason) < 200


class TestOrder:
    """More than five fields: the seconds come sixth, not first."""

    @pytest.mark.parametrize(
        ("expression", "said"),
        [
            ("0 30 2 * * 1-5", "the hour '30': 30 lies outside 0-23; of 6 fields, the sixth holds the seconds: "
             "'30 2 * * 1-5 0'"),
            ("0 30 2 * * 99", "the sixth holds the seconds"),
            ("0 30 2 * * 1 2020", "of 7 fields, the sixth holds the seconds"),
        ],
    )  # fmt: skip
    def test_is_told(self, expression: str, said: str) -> None:
        fault = cron_fault(expression)
        assert fault is not None
        assert said in fault.reason

    def test_what_is_suggested_is_accepted(self) -> None:
        assert server_accepts("30 2 * * 1-5 0")

    def test_not_of_five(self) -> None:
        fault = cron_fault("0 30 2 * *")
        assert fault is not None and "sixth" not in fault.reason


class TestNeverComes:
    @pytest.mark.parametrize(
        "expression", ["30 2 30 2 *", "0 0 31 feb,apr,Jun *", "0 0 30-31 2 ?", "0 0 31 4 * 0", "0 0 31 9,11 *"]
    )
    def test_days_that_no_year_has(self, expression: str) -> None:
        assert server_accepts(expression)
        assert never_comes(expression)

    @pytest.mark.parametrize(
        "expression",
        ["0 0 29 2 *", "0 0 30 2 mon", "0 0 31 4,5 *", "0 0 l 2 *", "0 0 * 2 *", "0 0 28-31 2 *", "0 0 ? 2 *",
         "@daily", "0 0 32 2 *", "nonsense", "", "0 0 r(30-31) 2 *"],
    )  # fmt: skip
    def test_other_days(self, expression: str) -> None:
        assert not never_comes(expression)

    def test_day_and_weekday(self) -> None:
        assert never_comes("0 0 30 2 mon", day_or=False)

    @given(expressions)
    def test_never_fails(self, expression: str) -> None:
        assert never_comes(expression) in (True, False)
