"""Parameters that the server works out: either form is what was asked for.

What an update stores was measured on 3.8.8; `tests/integration/test_plan_on_server.py` sees it on a real server.
"""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config import Policy
from orchestrator.model import Desired
from orchestrator.parameter_kinds import as_stored
from orchestrator.plan import make_plan
from tests.unit.builders import API_URL, OWNER, deployment, live

JSON = {"__prefect_kind": "json", "value": '{"a": [1, 2]}'}
JINJA = {"__prefect_kind": "jinja", "template": "hi {{ 1 + 1 }}"}
VARIABLE = {"__prefect_kind": "workspace_variable", "variable_name": "x"}
NOTHING = {"__prefect_kind": "json"}

# wanted, what an update stores
STORED: list[tuple[Any, Any]] = [
    ({"p": JSON}, {"p": {"a": [1, 2]}}),
    ({"p": JINJA}, {"p": "hi 2"}),
    ({"p": VARIABLE}, {"p": {"z": 1}}),
    ({"p": {"__prefect_kind": "none", "value": {"a": {"__prefect_kind": "json", "value": "3"}}}}, {"p": {"a": 3}}),
    ({"p": NOTHING, "q": 1}, {"q": 1}),
    ({"p": {"__prefect_kind": "workspace_variable"}}, {}),
    ({"p": [NOTHING, {"__prefect_kind": "json", "value": "4"}, JINJA]}, {"p": [4, "hi 2"]}),
    ({"p": {"__prefect_kind": "foo", "value": 5}}, {"p": 5}),
    ({"p": {"__prefect_kind": "foo"}}, {"p": None}),
    ({"p": {"__prefect_kind": "json", "value": JINJA}}, {"p": {"q": 2}}),
    ({"p": {"__prefect_kind": "json", "value": [1]}}, {"p": [1]}),
    ({"p": {"deep": {"er": JSON}}, "q": 2}, {"p": {"deep": {"er": {"a": [1, 2]}}}, "q": 2}),
]


@pytest.mark.parametrize(("wanted", "stored"), STORED)
def test_both_forms_are_what_was_asked_for(wanted: Any, stored: Any) -> None:
    for there in (wanted, stored):
        plan = make_plan(
            Desired(owner=OWNER, deployments=(deployment(parameters=wanted),)),
            [live(deployment(parameters=there))],
            api_url=API_URL,
            policy=Policy(),
        )
        assert plan.summary["unchanged"] == 1, plan.changes


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ({"p": JSON}, {"p": {"a": [1, 3]}}),
        ({"p": JSON}, {}),
        ({"p": JINJA}, {}),
        ({"p": JINJA}, {"p": None}),
        ({"p": JINJA}, {"p": {**JINJA, "template": "other"}}),
        ({"p": JSON, "q": 1}, {"p": {"a": [1, 2]}, "q": 2}),
        ({"p": [JINJA]}, {"p": ["hi 2", "more"]}),
        ({"p": NOTHING}, {"p": 1}),
        ({"p": {"__prefect_kind": "json", "value": "no json"}}, {"p": 1}),
    ],
)
def test_what_is_another_value_differs(wanted: Any, there: Any) -> None:
    plan = make_plan(
        Desired(owner=OWNER, deployments=(deployment(parameters=wanted),)),
        [live(deployment(parameters=there))],
        api_url=API_URL,
        policy=Policy(),
    )
    assert plan.summary["update"] == 1


@pytest.mark.parametrize("value", [1, "x", None, [1, [2]], {"a": {"b": []}}, {}])
def test_plain_values_stay(value: Any) -> None:
    for there in (None, 5, {}, value):
        assert as_stored(there, value) == value
