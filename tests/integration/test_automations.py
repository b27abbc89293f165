"""Triggers of deployments on a real server: written, compared, and gone with their deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import live
from orchestrator.automations import normal_triggers, read_triggers, write_triggers
from orchestrator.config import Policy
from orchestrator.model import DeploymentConfig, DeploymentResult, Desired, Owner, Plan
from orchestrator.server import PrefectServer, open_server
from orchestrator.terms import Terms
from tests.unit.builders import deployment

from .api import Api, unique

SPECS: tuple[dict[str, Any], ...] = (
    {"expect": ["b.happened", "a.happened"], "parameters": {"x": "{{ event.name }}"}, "schedule_after": 60},
    {"name": "at-night", "enabled": False, "posture": "Proactive", "within": 3600, "expect": ["nothing.*"]},
    {
        "type": "compound",
        "require": "all",
        "within": 30,
        "triggers": [{"type": "event", "expect": ["a"]}, {"type": "event", "match_related": [{"a": "b"}, {"c": "d"}]}],
    },
    {"type": "sequence", "triggers": [{"type": "event", "expect": ["z"]}, {"type": "event", "expect": ["a"]}]},
)
TRIGGER = {"type": "event", "expect": ["x.*"], "posture": "Reactive", "threshold": 1, "within": 0}


@pytest.fixture
async def server(api: Api) -> AsyncIterator[PrefectServer]:
    async with open_server(api.url) as server:
        yield server


@pytest.fixture
async def there(api: Api, server: PrefectServer) -> AsyncIterator[tuple[str, DeploymentConfig]]:
    """The id of a deployment of ours without triggers, and what it should be."""
    project = unique("shop")
    owner = Owner(project=project, environment="development")
    config = deployment(f"{project}/daily", tags=(owner.tag,), triggers=normal_triggers(SPECS, "daily"))
    id_ = await server.create_deployment(config, {})
    yield id_, config
    for row in automations(api, id_):
        api.call("DELETE", f"/automations/{row['id']}")
    api.delete_deployments_of(project)


def automations(api: Api, id_: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = api.get(f"/automations/related-to/prefect.deployment.{id_}")
    return sorted(rows, key=lambda row: str(row["name"]))


async def triggers(server: PrefectServer, id_: str) -> tuple[Any, ...]:
    (found,) = [item for item in await read_triggers(server, await server.read_deployments()) if item.id == id_]
    return found.config.triggers


async def test_what_was_written_is_read_as_it_was_wanted(
    api: Api, server: PrefectServer, there: tuple[str, DeploymentConfig]
) -> None:
    id_, config = there
    assert await triggers(server, id_) == ()
    await write_triggers(server, id_, config)
    assert await triggers(server, id_) == config.triggers
    names = ["at-night", "daily__automation_1", "daily__automation_3", "daily__automation_4"]
    assert [row["name"] for row in automations(api, id_)] == names


async def test_writing_again_doubles_nothing(
    api: Api, server: PrefectServer, there: tuple[str, DeploymentConfig]
) -> None:
    id_, config = there
    for _ in range(2):
        await write_triggers(server, id_, config)
    assert len(automations(api, id_)) == len(SPECS)


async def test_what_somebody_changed_differs(
    api: Api, server: PrefectServer, there: tuple[str, DeploymentConfig]
) -> None:
    id_, config = there
    await write_triggers(server, id_, config)
    before = {row["name"]: row["id"] for row in automations(api, id_)}
    changed = automations(api, id_)[1]
    api.patch(f"/automations/{changed['id']}", enabled=False)
    found = await triggers(server, id_)
    assert [each["name"] for each in found] == [each["name"] for each in config.triggers]
    assert found != config.triggers
    await write_triggers(server, id_, config)
    assert {row["name"]: row["id"] for row in automations(api, id_)} == before  # changed in place
    assert await triggers(server, id_) == config.triggers
    api.call("DELETE", f"/automations/{changed['id']}")
    assert len(await triggers(server, id_)) == len(SPECS) - 1
    await write_triggers(server, id_, config)
    assert await triggers(server, id_) == config.triggers


async def test_what_people_made_for_a_deployment_is_theirs(
    api: Api, server: PrefectServer, there: tuple[str, DeploymentConfig]
) -> None:
    id_, config = there
    action = {"type": "run-deployment", "source": "selected", "deployment_id": id_}
    other = {"type": "change-flow-run-state", "state": "CANCELLED"}
    for number, actions in enumerate(([action], [action, other], [other])):
        api.post("/automations/", name=f"by-hand-{number}", trigger=TRIGGER, actions=actions)
    assert await triggers(server, id_) == ()
    await write_triggers(server, id_, config)
    await server.delete_triggers(id_)
    assert [row["name"] for row in automations(api, id_)] == ["by-hand-0", "by-hand-1"]
    for row in api.post("/automations/filter"):
        if row["name"].startswith("by-hand-"):
            api.call("DELETE", f"/automations/{row['id']}")


async def test_they_go_with_their_deployment(
    api: Api, server: PrefectServer, there: tuple[str, DeploymentConfig]
) -> None:
    id_, config = there
    await write_triggers(server, id_, config)
    await server.delete_deployment(id_)
    assert automations(api, id_) == []


async def test_those_that_prefect_deploy_made_are_known_by_their_names(
    api: Api, server: PrefectServer, there: tuple[str, DeploymentConfig]
) -> None:
    id_, config = there
    await write_triggers(server, id_, replace(config, tags=()))  # without an owner there is no tag of ours on them
    assert [row["tags"] for row in automations(api, id_)] == [[]] * len(SPECS)
    assert [each["name"] for each in await triggers(server, id_)] == [
        each["name"] for each in config.triggers if each["name"] != "at-night"
    ]


async def test_without_deployments_nothing_is_asked(server: PrefectServer) -> None:
    async with open_server("http://127.0.0.1:9/api") as nowhere:
        assert await read_triggers(nowhere, ()) == ()


async def test_more_than_a_page(api: Api, server: PrefectServer, there: tuple[str, DeploymentConfig]) -> None:
    id_, config = there
    action = {"type": "run-deployment", "source": "selected", "deployment_id": id_}
    await write_triggers(server, id_, config)
    rows = [api.post("/automations/", name="much", trigger=TRIGGER, actions=[action]) for _ in range(201)]
    try:
        assert await triggers(server, id_) == config.triggers
    finally:
        for row in rows:
            api.call("DELETE", f"/automations/{row['id']}")


# ---------------------------------------------------------------------------------------------------------
# Planned and applied
# ---------------------------------------------------------------------------------------------------------

MINE = {"name": "mine", "expect": ["file.arrived"], "parameters": {"x": 1}}


async def planned(api: Api, *wanted: DeploymentConfig) -> Plan:
    owner = Owner.from_tags(wanted[0].tags)
    assert owner is not None
    desired = Desired(owner=owner, deployments=wanted)
    return await live.plan_changes(desired, Policy(), api_url=api.url, adopt=["*"], recorded_as="a test")


async def applied(api: Api, *wanted: DeploymentConfig, atomic: bool = False) -> DeploymentResult:
    terms = Terms(adopt=("*",), verifies=False, is_atomic=atomic)
    return await live.apply_changes(await planned(api, *wanted), api_url=api.url, terms=terms)


def told(plan: Plan) -> tuple[dict[str, tuple[Any, Any]], tuple[str, ...]]:
    """What a plan says about the triggers of its first deployment."""
    change = plan.changes[0]
    fields = {item.path: (item.before, item.after) for item in change.fields if item.path.startswith("triggers")}
    return fields, change.kept


@pytest.fixture
async def deployed_by_prefect(api: Api, server: PrefectServer) -> AsyncIterator[tuple[str, DeploymentConfig]]:
    """A deployment of nobody, with a trigger as `prefect deploy` makes one, one by hand; and what is to be adopted."""
    project = unique("shop")
    owner = Owner(project=project, environment="development")
    config = deployment(f"{project}/daily", tags=(owner.tag,), triggers=normal_triggers([MINE], "daily"))
    id_ = await server.create_deployment(replace(config, tags=(), triggers=()), {})
    action = {"type": "run-deployment", "source": "selected", "deployment_id": id_}
    trigger = {**TRIGGER, "expect": MINE["expect"], "within": 9}
    actions = [{**action, "parameters": MINE["parameters"]}]
    owned_by = f"prefect.deployment.{id_}"
    api.post("/automations/", name="mine", tags=["x"], trigger=trigger, actions=actions, owner_resource=owned_by)
    api.post("/automations/", name="by-hand", trigger=TRIGGER, actions=[action])
    yield id_, config
    for row in automations(api, id_):
        api.call("DELETE", f"/automations/{row['id']}")
    api.delete_deployments_of(project)


async def test_a_failed_atomic_adoption_loses_nothing(
    api: Api, deployed_by_prefect: tuple[str, DeploymentConfig]
) -> None:
    id_, config = deployed_by_prefect
    before = automations(api, id_)
    loop = {"name": "refused", "expect": ["prefect.flow-run.Running"]}  # comes after `mine`, which is written by then
    asked = replace(config, triggers=normal_triggers([MINE, loop], "daily"))
    (result,) = (await applied(api, asked, atomic=True)).results
    assert result.status == "failed"
    assert "infinite loop" in str(result.error)
    assert "was set back" in str(result.error)
    assert automations(api, id_)[1]["updated"] != before[1]["updated"]
    assert [without_times(row) for row in automations(api, id_)] == [without_times(row) for row in before]


async def test_an_adoption_takes_over_the_triggers_that_it_names(
    api: Api, server: PrefectServer, deployed_by_prefect: tuple[str, DeploymentConfig]
) -> None:
    id_, config = deployed_by_prefect
    by_hand = automations(api, id_)[0]
    fields, kept = told(await planned(api, config))
    assert fields == {"triggers.mine.within": (9, 0)}
    assert [words.partition(":")[0] for words in kept] == ["triggers.by-hand"]
    assert not (await applied(api, config)).failed
    assert [row["name"] for row in automations(api, id_)] == ["by-hand", "mine"]
    assert automations(api, id_)[0] == by_hand
    assert await triggers(server, id_) == config.triggers
    assert not (await planned(api, config)).has_changes
    await server.delete_triggers(id_)
    assert automations(api, id_) == [by_hand]  # what was changed in place is still the deployment's own


async def test_triggers_that_do_not_differ_are_ours_after_an_adoption(
    api: Api, server: PrefectServer, deployed_by_prefect: tuple[str, DeploymentConfig]
) -> None:
    id_, config = deployed_by_prefect
    same = replace(config, triggers=normal_triggers([{**MINE, "within": 9}], ""))
    assert told(await planned(api, same))[0] == {}
    ids = [row["id"] for row in automations(api, id_)]
    assert not (await applied(api, same)).failed
    assert [row["id"] for row in automations(api, id_)] == ids
    assert not (await planned(api, same)).has_changes
    assert not (await applied(api, replace(same, triggers=()))).failed
    assert [row["name"] for row in automations(api, id_)] == ["by-hand"]


async def test_an_adoption_without_triggers_leaves_those_of_others(
    api: Api, deployed_by_prefect: tuple[str, DeploymentConfig]
) -> None:
    id_, config = deployed_by_prefect
    before = automations(api, id_)
    assert not (await applied(api, replace(config, triggers=()))).failed
    assert automations(api, id_) == before


async def test_what_somebody_switched_off_stays_off(
    api: Api, server: PrefectServer, there: tuple[str, DeploymentConfig]
) -> None:
    id_, config = there
    config = replace(config, triggers=normal_triggers([MINE], "daily"))
    await applied(api, config)
    api.patch(f"/automations/{automations(api, id_)[0]['id']}", enabled=False)
    plan = await planned(api, config)
    assert (plan.has_changes, told(plan)) == (False, ({}, ("triggers.mine.enabled: somebody switched it off",)))
    changed = replace(config, triggers=normal_triggers([{**MINE, "within": 5}], "daily"))
    assert not (await applied(api, changed)).failed
    assert [(row["enabled"], row["trigger"]["within"]) for row in automations(api, id_)] == [(False, 5)]
    assert not (await planned(api, changed)).has_changes


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """An automation without what any write of it changes."""
    trigger = {key: value for key, value in row["trigger"].items() if key != "id"}
    return {key: value for key, value in row.items() if key != "updated"} | {"trigger": trigger}
