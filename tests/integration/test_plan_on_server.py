"""What a plan says of a real server: who moved, which runs it touches, and what Prefect keeps in a form of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import live, runs
from orchestrator.config import Policy
from orchestrator.errors import HeldError
from orchestrator.holds import read_hold, set_hold
from orchestrator.model import (
    Change,
    DeploymentConfig,
    Desired,
    Hold,
    LiveDeployment,
    Owner,
    Plan,
    Provenance,
    RecordedState,
    ScheduleConfig,
    TouchedRuns,
    Trigger,
)
from orchestrator.plan import refreshed, touching, with_causes, with_runs
from orchestrator.server import open_server
from orchestrator.terms import Terms
from tests.unit.builders import record

from .api import Api, unique
from .proxy import Fault, Request, proxy_to

HOUR = 3600


@pytest.fixture
def owner(api: Api) -> Iterator[Owner]:
    owner = Owner(project=unique("planned"), environment="development")
    yield owner
    api.delete_deployments_of(owner.project)


def wants(owner: Owner, name: str = "daily", **fields: Any) -> DeploymentConfig:
    """A deployment of ours, of a flow that has the project's name."""
    values: dict[str, Any] = {"entrypoint": "flows/etl.py:etl", "version": "1", "tags": (owner.tag,)}
    return DeploymentConfig(flow_name=owner.project, deployment_name=name, **{**values, **fields})


async def plan_of(owner: Owner, *wanted: DeploymentConfig) -> Plan:
    return await live.plan_changes(Desired(owner=owner, deployments=wanted), Policy())


async def apply(owner: Owner, *wanted: DeploymentConfig) -> None:
    result = await live.apply_changes(await plan_of(owner, *wanted))
    assert not result.failed, result.failed


async def read(owner: Owner) -> tuple[LiveDeployment, ...]:
    async with open_server() as server:
        return tuple(item for item in await server.read_deployments() if item.owner == owner)


async def touched(*ids: str) -> dict[str, TouchedRuns]:
    async with open_server() as server:
        return await runs.touched_runs(server, ids)


def only(plan: Plan) -> Change:
    (change,) = plan.changes
    return change


def recorded(owner: Owner, *deployments: DeploymentConfig) -> RecordedState:
    return record(3, *deployments, owner=owner)


# --- runs ------------------------------------------------------------------------------------------------


def deployed(api: Api, owner: Owner, name: str, *, interval: int = HOUR) -> str:
    """A deployment with a schedule and its scheduled runs; returns its id."""
    schedule = {"schedule": {"interval": interval}, "active": True}
    row = api.deploy(f"{owner.project}/{name}", tags=[owner.tag], schedules=[schedule])
    api.schedule_runs(row["id"])
    return str(row["id"])


def start(api: Api, deployment_id: str, *states: str) -> None:
    for state in states:
        run = api.post(f"/deployments/{deployment_id}/create_flow_run")
        api.post(f"/flow_runs/{run['id']}/set_state", state={"type": state}, force=True)


async def test_runs_are_counted_for_each_deployment(api: Api, owner: Owner) -> None:
    hourly, daily, quiet = (
        deployed(api, owner, name, interval=seconds)
        for name, seconds in (("hourly", HOUR), ("daily", 24 * HOUR), ("quiet", HOUR))
    )
    start(api, hourly, "RUNNING", "PENDING", "PAUSED", "COMPLETED", "CRASHED")
    api.post(f"/deployments/{quiet}/pause_deployment")  # which removes its scheduled runs

    found = await touched(hourly, daily, quiet)
    for id_, running in ((hourly, 3), (daily, 0)):
        waiting = api.scheduled_runs(id_)
        assert waiting
        assert (found[id_].scheduled, found[id_].running) == (len(waiting), running)
        assert found[id_].next_start == waiting[0]["expected_start_time"]
    assert found[quiet] == TouchedRuns()


async def test_no_deployments_cost_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_server() as server:
        monkeypatch.setattr(server, "request", None)
        assert await runs.touched_runs(server, []) == {}


async def test_more_runs_than_are_looked_at(api: Api, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PAGE", 2)
    monkeypatch.setattr(runs, "MOST_PAGES", 1)
    (found,) = (await touched(deployed(api, owner, "hourly"))).values()
    assert (found.scheduled, found.is_more) == (2, True)


async def test_many_deployments_are_asked_for_in_chunks(
    api: Api, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [deployed(api, owner, f"d{number}") for number in range(3)]
    expected = await touched(*ids)
    monkeypatch.setattr(runs, "PAGE", 2)
    assert await touched(*ids) == expected
    assert all(found.scheduled for found in expected.values())


async def test_a_plan_says_which_runs_it_touches(api: Api, owner: Owner) -> None:
    schedules = (ScheduleConfig(interval=HOUR, slug="hourly"),)
    await apply(owner, wants(owner, schedules=schedules), wants(owner, "same"), wants(owner, "gone"))
    gone = api.deployment(f"{owner.project}/gone")["id"]
    start(api, gone, "RUNNING")
    api.schedule_runs(api.deployment(f"{owner.project}/daily")["id"])

    plan = await plan_of(owner, wants(owner, schedules=schedules, description="new"), wants(owner, "same"))
    plan = with_runs(plan, await touched(*touching(plan)))
    found = {change.deployment.partition("/")[2]: change.runs for change in plan.changes}
    assert found["daily"].scheduled > 0
    assert found["gone"] == TouchedRuns(running=1)
    assert found["same"] == TouchedRuns()


# --- causes ----------------------------------------------------------------------------------------------


async def test_who_moved_since_the_last_apply(api: Api, owner: Owner) -> None:
    was = wants(
        owner,
        parameters={"tables": 3, "mode": "fast"},
        description="as applied",
        schedules=(
            ScheduleConfig(cron="0 4 * * *", slug="nightly"),
            ScheduleConfig(rrule="FREQ=DAILY", timezone="UTC", slug="r"),
        ),
    )
    await apply(owner, was)
    last = recorded(owner, was)
    same = with_causes(await plan_of(owner, was), last)
    assert not same.has_changes, only(same).fields

    id_ = api.deployment(f"{owner.project}/daily")["id"]
    api.patch(f"/deployments/{id_}", description="by hand", parameters={"tables": 5, "mode": "fast"})
    schedule = {"schedule": {"cron": "0 9 * * *"}, "active": True}
    api.call("POST", f"/deployments/{id_}/schedules", [schedule])
    now = replace(was, parameters={"tables": 7, "mode": "slow"}, version="2", schedules=was.schedules[1:])
    change = only(with_causes(await plan_of(owner, now), last))
    assert {diff.path: diff.cause for diff in change.fields} == {
        "parameters.tables": "both",
        "parameters.mode": "repository",
        "description": "server",
        "version": "repository",
        "schedules[nightly]": "repository",
        "schedules[cron 0 9 * * *]": "server",
    }


async def test_what_somebody_deleted(api: Api, owner: Owner) -> None:
    wanted = wants(owner)
    await apply(owner, wanted)
    api.delete_deployments_of(owner.project)
    change = only(with_causes(await plan_of(owner, wanted), recorded(owner, wanted)))
    assert (change.action, change.reasons) == ("create", ("somebody deleted it from the server after revision 3",))


# --- refreshed -------------------------------------------------------------------------------------------


async def test_a_plan_is_worked_out_anew_for_what_is_there_now(api: Api, owner: Owner) -> None:
    await apply(owner, wants(owner), wants(owner, "gone"))
    plan = await plan_of(owner, wants(owner, description="new"))
    assert refreshed(plan, await read(owner)).checksum == plan.checksum

    ids = {name: row["id"] for name, row in api.deployments_of(owner.project).items()}
    api.call("DELETE", f"/deployments/{ids['gone']}")
    api.patch(f"/deployments/{ids['daily']}", version="by hand")
    now = refreshed(plan, await read(owner))
    assert now.checksum != plan.checksum
    assert [diff.path for diff in only(now).fields] == ["description", "version"]
    await live.apply_changes(now)
    assert not (await plan_of(owner, wants(owner, description="new"))).has_changes


# --- what Prefect keeps in a form of its own -------------------------------------------------------------


async def test_parameters_that_the_server_works_out_converge(api: Api, owner: Owner) -> None:
    api.post("/variables/", name=owner.project.replace("-", "_"), value={"z": 1})
    wanted = wants(
        owner,
        enforce_parameter_schema=False,
        parameters={
            "json": {"__prefect_kind": "json", "value": '{"a": [1, 2.0]}'},
            "nested": {"__prefect_kind": "none", "value": {"a": {"__prefect_kind": "json", "value": "3"}}},
            "jinja": {"__prefect_kind": "jinja", "template": "hi {{ 1 + 1 }}"},
            "variable": {
                "__prefect_kind": "workspace_variable",
                "variable_name": owner.project.replace("-", "_"),
            },
            "nothing": {"__prefect_kind": "json"},
            "list": [{"__prefect_kind": "json"}, {"__prefect_kind": "json", "value": "4"}],
            "unknown": {"__prefect_kind": "foo", "value": 5},
            "plain": 1,
        },
    )
    await apply(owner, wanted)  # a create stores what is written
    assert not (await plan_of(owner, wanted)).has_changes
    assert api.deployment(f"{owner.project}/daily")["parameters"] == wanted.parameters

    changed = replace(wanted, parameters={**wanted.parameters, "plain": 2})
    assert [diff.path for diff in only(await plan_of(owner, changed)).fields] == ["parameters.plain"]
    await apply(owner, changed)  # an update stores what it stands for
    assert not (await plan_of(owner, changed)).has_changes
    stored = api.deployment(f"{owner.project}/daily")["parameters"]
    assert stored["json"] == {"a": [1, 2.0]} and stored["variable"] == {"z": 1} and "nothing" not in stored


async def test_a_renamed_schedule_keeps_its_id_and_stays_switched_off(api: Api, owner: Owner) -> None:
    await apply(owner, wants(owner, schedules=(ScheduleConfig(cron="0 4 * * *", slug="old"),)))
    path = f"{owner.project}/daily"
    row = api.deployment(path)
    before = row["schedules"][0]["id"]
    api.patch(f"/deployments/{row['id']}/schedules/{before}", active=False)

    renamed = wants(owner, schedules=(ScheduleConfig(cron="0 5 * * *", slug="new", replaces="old"),))
    await apply(owner, renamed)
    (schedule,) = api.deployment(path)["schedules"]
    assert (schedule["id"], schedule["slug"], schedule["active"]) == (before, "new", False)
    assert schedule["schedule"]["cron"] == "0 5 * * *"
    assert not (await plan_of(owner, renamed)).has_changes


# --- held back --------------------------------------------------------------------------------------------


async def hold_of(owner: Owner) -> Hold | None:
    async with open_server() as server:
        return await read_hold(server, owner)


async def held(owner: Owner) -> Plan:
    """A plan that changes something, and a hold that somebody set after it was made."""
    plan = await plan_of(owner, wants(owner))
    async with open_server() as server:
        await set_hold(server, Hold(owner=owner, revision=3, desired_digest="as it was", by="me@here"))
    return plan


def terms(trigger: Trigger, digest: str = "as it was") -> Terms:
    return Terms(provenance=Provenance(trigger=trigger), desired_digest=digest, verifies=False)


async def test_a_scheduled_sync_that_waited_for_the_lock_undoes_no_rollback(api: Api, owner: Owner) -> None:
    plan = await held(owner)
    with pytest.raises(HeldError, match="rollback to revision 3 by me@here"):
        await live.apply_changes(plan, terms=terms("schedule"))
    assert not api.deployments_of(owner.project)
    assert await hold_of(owner)


async def test_a_scheduled_sync_goes_on_when_the_repository_has(api: Api, owner: Owner) -> None:
    result = await live.apply_changes(await held(owner), terms=terms("schedule", "something else"))
    assert (result.status, set(api.deployments_of(owner.project))) == ("completed", {"daily"})
    assert await hold_of(owner) is None


async def test_who_applies_by_hand_is_told_and_ends_the_hold(api: Api, owner: Owner) -> None:
    await held(owner)
    plan = await plan_of(owner, wants(owner))
    assert plan.hold and plan.hold.revision == 3
    assert (await live.apply_changes(plan, terms=terms("command line"))).status == "completed"
    assert await hold_of(owner) is None


@pytest.mark.parametrize("earlier", [True, False])
async def test_a_rollback_that_somebody_interrupts_before_it_writes_leaves_the_hold_as_it_was(
    api: Api, owner: Owner, earlier: bool
) -> None:
    plan = await (held(owner) if earlier else plan_of(owner, wants(owner)))
    before = await hold_of(owner)
    async with proxy_to(api.url) as proxy:
        back = replace(terms("rollback"), hold=Hold(owner=owner, revision=1, desired_digest="now", by="me@here"))
        task = asyncio.create_task(live.apply_changes(plan, api_url=proxy.api_url, terms=back))
        sent = asyncio.Event()

        def judge(request: Request) -> Fault | None:
            variables = [each for each in proxy.writes if each.path.startswith("/api/variables/")]
            if request not in variables or len(variables) != 2:  # the first one is the lock
                return None
            sent.set()
            return "delay"

        proxy.judge = judge
        await sent.wait()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert await hold_of(owner) == before
    assert not api.deployments_of(owner.project)


async def test_an_apply_that_writes_nothing_ends_no_hold(api: Api, owner: Owner) -> None:
    await held(owner)
    plan = await plan_of(owner, wants(owner, work_pool="no-such-pool"))
    assert (await live.apply_changes(plan, terms=terms("command line"))).status == "degraded"
    assert await hold_of(owner)
