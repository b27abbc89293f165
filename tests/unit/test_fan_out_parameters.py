"""What a submission is told, and what it makes of it before it asks the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_jsonable_python

from orchestrator.errors import ConfigurationError
from orchestrator.fanout.columns import rows_of
from orchestrator.fanout.options import Options
from orchestrator.fanout.parent import Keys
from orchestrator.fanout.target import Target, require_fit
from orchestrator.submission import flow_submitter

ID = UUID("5dbb7e53-29cf-4b75-8e4c-8cbba6a8fbb4")


def target(properties: Mapping[str, Any] | None = None, required: tuple[str, ...] = (), **fields: Any) -> Target:
    schema = {} if properties is None else {"properties": dict(properties), "required": list(required)}
    values: dict[str, Any] = {
        "id": str(ID),
        "flow_id": str(ID),
        "flow_name": "load",
        "name": "nightly",
        "schema": schema,
        "is_schema_enforced": True,
        "defaults": {},
        "work_pool": None,
        "work_queue": None,
    }
    return Target(**{**values, **fields})


# --- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"link": "sometimes"}, "link='sometimes': one of 'auto', True, False"),
        ({"on_failure": "stop"}, "on_failure='stop': one of 'collect', 'raise', 'cancel'"),
        ({"on_timeout": "raise"}, "on_timeout='raise': one of 'cancel', 'leave'"),
        ({"on_exit": None}, "on_exit=None: one of 'cancel', 'leave'"),
        ({"timeout": -1}, "timeout=-1: seconds, not negative"),
        ({"max_in_flight": 0}, "max_in_flight=0: at least 1"),
        ({"retries": -2}, "retries=-2: how often a run is started again, at least 0"),
        ({"timeout": "10"}, "timeout='10': seconds, not negative, or None"),
        ({"start_timeout": True}, "start_timeout=True: seconds"),
        ({"timeout": float("nan")}, "timeout=nan: seconds"),
        ({"retry_delay": None}, "retry_delay=None: seconds, not negative."),
        ({"max_in_flight": 2.5}, "max_in_flight=2.5: at least 1"),
        ({"max_in_flight": True}, "max_in_flight=True: at least 1"),
        ({"retries": "x"}, "retries='x': how often"),
        ({"retries": None}, "retries=None: how often"),
        ({"tags": (1, "a")}, "tags=(1, 'a'): texts"),
        ({"tags": 3}, "tags=3: texts"),
        ({"tags": None}, "tags=None: texts"),
        ({"job_variables": ["a"]}, "job_variables: a mapping"),
        ({"job_variables": 3}, "job_variables: a mapping"),
        ({"work_queue": ""}, "work_queue='': a queue's name"),
        ({"idempotency": "always"}, "idempotency='always': 'adopt', 'retry-failed', 'none', or a function"),
    ],
)
@pytest.mark.parametrize("told", [Options, partial(flow_submitter, "load/nightly")])
def test_an_option_that_cannot_be_meant_is_told(
    told: Callable[..., object], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError) as failure:
        told(**options)

    assert words in str(failure.value)


def test_all_faults_of_options_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"retry_delay='x'.*max_in_flight=0.*retries=-1.*work_queue=1"):
        Options(retry_delay="x", max_in_flight=0, retries=-1, work_queue=1)  # type: ignore[arg-type]


# --- columns ---------------------------------------------------------------------------------------------


def test_columns_become_rows() -> None:
    rows = rows_of({"table": range(2), "day": ["mon", "tue"], "size": (1, 2), "mode": "full"})

    assert rows == [
        {"table": 0, "day": "mon", "size": 1, "mode": "full"},
        {"table": 1, "day": "tue", "size": 2, "mode": "full"},
    ]
    assert rows_of({"table": []}) == []


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"table": range(3), "day": ["mon"], "mode": "full"}, r"differ in length \(table: 3, day: 1\)"),
        ({"mode": "full"}, "No column is a list, tuple or range"),
        ({}, "No column is a list"),
    ],
)
def test_columns_that_make_no_rows_are_told(columns: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        rows_of(columns)


# --- parameters ------------------------------------------------------------------------------------------


class Size(Enum):
    SMALL = "small"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00Z"),
        (date(2026, 1, 31), "2026-01-31"),
        (ID, str(ID)),
        (Decimal("1.50"), "1.50"),
        (Size.SMALL, "small"),
        ({"b", "a"}, ["a", "b"]),
        ({"of": [frozenset({2, 1}), ("x", None)]}, {"of": [[1, 2], ["x", None]]}),
        ((letter for letter in "ab"), ["a", "b"]),
        ({1: True}, {"1": True}),
    ],
)
def test_values_become_json(value: object, plain: object) -> None:
    assert require_fit(target({"value": {}}), [{"value": value}]) == [{"value": plain}]


def itself() -> list[object]:
    inner: list[object] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    "value", [object(), float("nan"), float("inf"), "\ud800", b"\xff", itself(), {"a": {1: {object()}}}]
)
def test_what_json_cannot_say_is_told(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^load/nightly: .* value: cannot be written as JSON"):
        require_fit(target(), [{"value": value}])


TABLE = {"table": {"type": "integer"}}
DAY = {"type": "string", "format": "date-time"}


@pytest.mark.parametrize(
    ("properties", "item", "words"),
    [
        (TABLE, {"tabel": 1}, "the flow has no parameter 'tabel'. Did you mean 'table'?;"),
        (TABLE, {"xyz": 1, "table": 1}, "the flow has no parameter 'xyz'."),
        (TABLE, {}, "'table' is a required property"),
        (TABLE, {"table": "x"}, "table: 'x' is not of type 'integer'"),
        ({**TABLE, "size": {"type": "integer"}}, {"table": 1, "size": "x"}, "not of type 'integer' and 'x' is not of"),
        ({**TABLE, "size": {"enum": [1, 2]}}, {"table": 1, "size": 3}, "size: 3 is not one of [1, 2]"),
        ({**TABLE, "password": {"enum": [1]}}, {"table": 1, "password": "hunter2x"}, "'********' is not one of"),
    ],
)
def test_what_does_not_fit_is_told(properties: dict[str, Any], item: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        require_fit(target(properties, ("table",)), [item])

    assert words in str(failure.value)


CONNECTION = {"type": "object", "properties": {"password": {"type": "integer"}}}
MAYBE = {"anyOf": [CONNECTION, {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (MAYBE, {"password": "hunter2"}),
        ({"anyOf": [MAYBE, {"type": "array"}]}, {"password": "hunter2"}),
        ({"anyOf": [{"type": "object", "properties": {"inner": MAYBE}}]}, {"inner": {"password": "hunter2"}}),
        ({"type": "array", "items": MAYBE}, [{"password": "hunter2"}]),
        ({"type": "integer"}, {"password": "hunter2"}),
    ],
)
def test_a_secret_within_a_value_is_not_shown(schema: dict[str, Any], value: object) -> None:
    with pytest.raises(ConfigurationError) as failure:
        require_fit(target({"conn": schema}), [{"conn": value}])

    assert "hunter2" not in str(failure.value) and "********" in str(failure.value)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["Bern"], "the flow: 'Bern' is no mapping of parameters to their values, such as {'table': 3}."),
        ([{"table": 1}, None], "the flow (2 items, counted from 0): item 1: None is no mapping"),
        (["password=hunter2-and-more"], "'password=********' is no mapping"),
        ([{1: 2}], "1: a parameter's name is text"),
    ],
)
def test_an_item_that_is_none_is_told(items: list[Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        require_fit(target(TABLE), items)

    assert words in str(failure.value)


@pytest.mark.parametrize(
    ("about", "item"),
    [
        (target({"day": DAY}), {"day": datetime(2026, 1, 31)}),  # noqa: DTZ001 - the flow takes it, the server, too
        (target({"day": DAY}), {"day": "2026-01-31"}),
        (target(TABLE, ("table",), defaults={"table": 1}), {}),
        (target(TABLE, ("table",)), {"table": {"__prefect_kind": "json", "value": "1"}}),
        (target({"of": {"items": {"type": "integer"}}}), {"of": [{"__prefect_kind": "json", "value": "1"}]}),
        (target(TABLE, is_schema_enforced=False), {"table": "x", "other": 1}),
        (target(None), {"anything": 1}),
        (target({"it": {"$ref": "http://127.0.0.1:9/nowhere"}}), {"it": 1}),  # the server says what is wrong with it
    ],
)
def test_what_the_server_takes_is_no_fault(about: Target, item: dict[str, Any]) -> None:
    assert require_fit(about, [item]) == [to_jsonable_python(item)]


def test_of_many_items_each_is_named_until_there_are_ten() -> None:
    with pytest.raises(
        ConfigurationError, match=r"item 0: .*item 9: .*; and 20 more\. No run was created\."
    ) as failure:
        require_fit(target(TABLE), [{"table": "x"}] * 30)

    assert "item 10:" not in str(failure.value)


# --- keys ------------------------------------------------------------------------------------------------


def test_outside_of_a_run_every_item_is_a_new_one() -> None:
    keys = Keys(None, "site", item_key=None, are_new=False)

    assert not keys.may_exist
    assert keys.key_of("id", {"table": 1}, {}) != keys.key_of("id", {"table": 1}, {})
    assert keys.batch_tag("flow", "id") != keys.batch_tag("flow", "id")


@given(st.text(), st.text())
def test_peoples_own_keys_are_one_where_they_are_equal(one: str, other: str) -> None:
    def key(text: str, deployment_id: str = "id") -> str:
        keys = Keys(None, "whoever submits", item_key=lambda item: item["text"], are_new=False)
        assert keys.may_exist
        return keys.key_of(deployment_id, {}, {"text": text})

    assert (key(one) == key(other)) == (one == other)
    assert key(one) != key(one, "another deployment")


def test_people_are_shown_their_own_values() -> None:
    keys = Keys(None, "site", item_key=lambda item: item["day"].isoformat(), are_new=False)

    assert keys.key_of("id", {"day": "2026-01-31"}, {"day": date(2026, 1, 31)})
