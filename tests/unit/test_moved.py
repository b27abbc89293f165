"""Why a plan that was looked at is not carried out: what has moved since, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.config import Policy
from orchestrator.model import DeploymentConfig, Desired, LimitSpec, LiveDeployment, LiveResources, Plan, Resources
from orchestrator.moved import has_moved, moved, outline
from orchestrator.plan import make_plan
from orchestrator.resources import plan_resources
from tests.unit.builders import API_URL, OWNER, deployment, live

DAILY, WEEKLY = deployment("etl/daily", description="new"), deployment("etl/weekly")
OLD = live(DAILY, description="old")


def plan(*wanted: DeploymentConfig, there: tuple[LiveDeployment, ...] = (), slots: int | None = None) -> Plan:
    limits = (LimitSpec(scope="tag", name="database", slots=slots),) if slots is not None else ()
    resources = plan_resources(Resources(limits=limits), LiveResources())
    desired = Desired(owner=OWNER, deployments=wanted)
    return make_plan(desired, there, api_url=API_URL, policy=Policy(), resources=resources)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (plan(DAILY), plan(DAILY), ()),
        (plan(DAILY), plan(DAILY, there=(live(DAILY),)), ("etl/daily: create then, nothing now",)),
        (plan(DAILY), plan(DAILY, there=(OLD,)), ("etl/daily: create then, update now",)),
        (plan(DAILY), plan(DAILY, WEEKLY), ("etl/weekly: nothing then, create now",)),
        (
            plan(DAILY, there=(OLD,)),
            plan(DAILY, there=(live(DAILY, description="older", paused=True, version="1"),)),
            ("etl/daily: other values of description, version",),
        ),
        (plan(slots=1), plan(slots=2), ("tag limit database: other values of slots",)),
        (plan(slots=1), plan(), ("tag limit database: create then, nothing now",)),
    ],
)
def test_what_has_moved_is_told(before: Plan, now: Plan, expected: tuple[str, ...]) -> None:
    assert moved(outline(before), outline(now)) == expected


def test_a_refusal_names_a_few_and_counts_the_rest() -> None:
    many = [deployment(f"etl/d{number}") for number in range(8)]
    error = has_moved("The server has", outline(plan()), plan(*many))
    assert error.message.startswith("The server has moved since this plan was made (etl/d0: nothing then, create now; ")
    assert error.message.endswith("; and 3 more); nothing was changed.")


def test_what_nobody_is_shown_is_not_told() -> None:
    """A schedule with another id, say: it is another plan, and reads like the first."""
    other = replace(OLD, id="another")
    before, now = plan(DAILY, there=(OLD,)), plan(DAILY, there=(other,))
    assert before.checksum != now.checksum
    assert "(" not in has_moved("The server has", outline(before), now).message
