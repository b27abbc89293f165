"""Applying through a bad line, and applying all or nothing, against a real server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.apply import apply_plan
from orchestrator.model import DeploymentConfig, DeploymentResult, Plan
from orchestrator.server import open_server
from orchestrator.writers import Writers

from .api import Api
from .gitops import (
    OTHER_POOL,
    SCHEMA,
    TWO,
    Repository,
    actions,
    every,
    full,
    statuses,
)
from .proxy import Fault, Proxy, Request, first, proxy_to


async def apply_to(api_url: str, plan: Plan, **more: Any) -> DeploymentResult:
    async with open_server(api_url) as server:
        return await apply_plan(plan, server, **more)


def early_of(api: Api, repository: Repository, name: str) -> str:
    """The id of the schedule that every test leaves alone."""
    schedules = api.deployment(repository.path(name))["schedules"]
    return next(item["id"] for item in schedules if item["slug"] == "early")


def writes_to(proxy: Proxy, ending: str) -> int:
    return sum(request.path.endswith(ending) for request in proxy.writes)


# --- a bad line -------------------------------------------------------------------------------------------


def once_each(fault: Fault) -> Any:
    """Fail the first write of each kind, whatever it is about: `PATCH deployments`, `DELETE schedules`, …"""
    failed = set()

    def judge(request: Request) -> Fault | None:
        words = [part for part in request.path.split("/") if part and "-" not in part]
        kind = (request.method, *words)
        if not request.writes or kind in failed:
            return None
        failed.add(kind)
        return fault

    return judge


LINES: tuple[Fault, ...] = ("503", "503 for a second", "429", "hang up", "cut the request", "lose the answer")


@pytest.mark.parametrize("fault", [*LINES, "cut the answer"])
async def test_whatever_write_goes_wrong_once_all_arrives_once(api: Api, repository: Repository, fault: Fault) -> None:
    goes = every(cron="0 3 * * *", slug="goes")
    await repository.deployed(
        repository.wants("changed", schedules=(*TWO, goes)), repository.wants("running"), repository.wants("old")
    )
    kept = early_of(api, repository, "changed")
    changed = (TWO[0], replace(TWO[1], cron="0 9 * * *"), every(interval=7200), every(cron="0 5 * * *", slug="comes"))
    wanted = [
        repository.wants("changed", schedules=changed, description="new"),
        repository.wants("running", paused=True),
        repository.wants("new", schedules=TWO),
        repository.wants("other", schedules=(every(rrule="FREQ=DAILY"),)),
    ]
    plan = await repository.plan(*wanted)
    async with proxy_to(api.url) as proxy:
        proxy.judge = once_each(fault)
        result = await apply_to(proxy.api_url, plan)

    assert result.status == "completed", result.failed
    rows = api.deployments_of(repository.flow)
    assert set(rows) == {"changed", "running", "new", "other"}
    assert {name: len(row["schedules"]) for name, row in rows.items()} == {
        "changed": 4,
        "running": 0,
        "new": 2,
        "other": 1,
    }
    assert rows["running"]["paused"] is True
    assert early_of(api, repository, "changed") == kept
    assert set(actions(await repository.plan(*wanted)).values()) == {"unchanged"}


async def test_a_create_whose_answer_was_lost_is_not_sent_again(api: Api, repository: Repository) -> None:
    plan = await repository.plan(repository.wants(schedules=TWO))
    async with proxy_to(api.url) as proxy:
        proxy.judge = first(1, "lose the answer", when=lambda request: request.path == "/api/deployments/")
        result = await apply_to(proxy.api_url, plan)
        assert writes_to(proxy, "/api/deployments/") == 1
    assert result.status == "completed"


@pytest.mark.parametrize("rule", [{"cron": "0 1 * * *", "slug": "s"}, {"interval": 3600}, {"rrule": "FREQ=DAILY"}])
async def test_a_schedule_whose_answer_was_lost_is_not_sent_again(
    api: Api, repository: Repository, rule: dict[str, Any]
) -> None:
    there = every(cron="0 7 * * *", slug="there" if "slug" in rule else None)
    await repository.deployed(repository.wants(schedules=(there,)))
    plan = await repository.plan(repository.wants(schedules=(there, every(**rule))))
    async with proxy_to(api.url) as proxy:
        proxy.judge = first(1, "lose the answer", when=lambda request: request.path.endswith("/schedules"))
        result = await apply_to(proxy.api_url, plan)
        assert writes_to(proxy, "/schedules") == 1
    assert result.status == "completed"
    assert len(api.deployment(repository.path())["schedules"]) == 2


async def test_what_somebody_else_created_meanwhile_is_not_taken_for_ours(api: Api, repository: Repository) -> None:
    """The answer is not lost but the request, and somebody creates a deployment of this name before the next try."""
    plan = await repository.plan(repository.wants())

    def judge(request: Request) -> Fault | None:
        if request.path == "/api/deployments/" and not api.deployments_of(repository.flow):
            api.deploy(repository.path(), tags=["theirs"])
            return "hang up"
        return None

    async with proxy_to(api.url) as proxy:
        proxy.judge = judge
        result = await apply_to(proxy.api_url, plan)
    assert statuses(result) == {"daily": "failed"}
    assert api.deployment(repository.path())["tags"] == ["theirs"]


async def test_flows_without_deployments_cost_nothing(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants())
    for number in range(201):
        api.post("/flows/", name=f"{repository.flow}-{number}")
    async with proxy_to(api.url) as proxy:
        plan = await repository.through(proxy.api_url).plan(repository.wants())
        asked = [request.path for request in proxy.seen]
    assert actions(plan) == {"daily": "unchanged"}
    deployed = {row["flow_id"] for row in api.deployments().values()}
    assert len(deployed) > 200 or asked.count("/api/flows/filter") == 1


# --- all or nothing ---------------------------------------------------------------------------------------


def standing(api: Api, repository: Repository) -> dict[str, Any]:
    """Everything that the server says of a repository's deployments, but for when it was written."""
    rows = api.deployments_of(repository.flow)
    return {name: _timeless(row) for name, row in rows.items()}


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    passing = {"updated", "status", "last_polled", "global_concurrency_limit", "schedules", "concurrency_limit_id"}
    schedules = sorted(
        ({name: value for name, value in item.items() if name != "updated"} for item in row["schedules"]),
        key=lambda item: str(item["id"]),
    )
    limit = (row["global_concurrency_limit"] or {}).get("limit")
    rest = {name: value for name, value in row.items() if name not in passing}
    return {**rest, "limit": limit, "schedules": schedules}


NO_SLUGS = (every(cron="0 1 * * *"), every(interval=7200), every(cron="0 2 * * *"))


def before_and_after(repository: Repository) -> tuple[list[DeploymentConfig], list[DeploymentConfig]]:
    """Deployments that say something about everything, and what is to become of them."""
    everything = full(repository)
    before = [
        replace(everything, paused=False, parameters={"tables": 3, "options": {"fast": True}}),
        repository.wants("off", schedules=TWO, parameters={"a": 1}, concurrency_limit=2),
        repository.wants("nameless", schedules=NO_SLUGS),
        repository.wants("poolless", work_pool=None, work_queue=None),
        repository.wants("paused"),
        repository.wants("running", schedules=TWO),
    ]
    nightly = replace(everything.schedules[0], cron="30 5 * * *", timezone="UTC", parameters={"tables": 2})
    after = [
        repository.wants(
            path="/elsewhere",
            work_pool=OTHER_POOL,
            parameters={"tables": 5, "options": {}},
            job_variables={"env": {"A": "2"}},
            schedules=(nightly, every(cron="0 6 * * *", slug="morning")),
            tags=("new",),
            description="New.",
            version="2",
            concurrency_limit=7,
            concurrency_options={"collision_strategy": "ENQUEUE"},
            parameter_schema={**SCHEMA, "required": []},
        ),
        repository.wants("off", schedules=(replace(TWO[1], cron="0 9 * * *"),), parameters={}),
        repository.wants("nameless", schedules=(replace(NO_SLUGS[0], parameters={"x": 1}), NO_SLUGS[2])),
        repository.wants("poolless"),
        repository.wants("paused", description="new"),
        repository.wants("running", paused=True, schedules=(TWO[0], replace(TWO[1], active=False))),
        repository.wants("created", schedules=TWO),
    ]
    return before, after


def as_people_left_it(api: Api, repository: Repository) -> None:
    """Somebody has paused one deployment and switched a schedule of another off."""
    rows = api.deployments_of(repository.flow)
    api.post(f"/deployments/{rows['paused']['id']}/pause_deployment")
    early = next(item["id"] for item in rows["off"]["schedules"] if item["slug"] == "early")
    api.patch(f"/deployments/{rows['off']['id']}/schedules/{early}", active=False, parameters={})


async def test_after_a_failure_every_field_and_schedule_is_as_it_was(api: Api, repository: Repository) -> None:
    before, after = before_and_after(repository)
    await repository.deployed(*before)
    as_people_left_it(api, repository)
    for row in api.deployments_of(repository.flow).values():
        if not row["paused"]:
            api.schedule_runs(row["id"])
    was, ids = (
        standing(api, repository),
        {row["name"]: row["id"] for row in api.deployments_of(repository.flow).values()},
    )
    times = start_times(api, ids)

    plan = await repository.plan(*after, repository.wants("zzz", work_pool="no-such-pool"))
    unwarned = replace(plan, changes=tuple(replace(change, findings=()) for change in plan.changes))
    result = await apply_to(api.url, unwarned, atomic=True)

    assert statuses(result) == {**dict.fromkeys([item.deployment_name for item in after], "restored"), "zzz": "failed"}
    assert standing(api, repository) == was
    # More there may be: the server's scheduler, too, may have read a rule just before it was set back.
    now = start_times(api, ids)
    assert {name: found & now[name] for name, found in times.items()} == times
    assert result.status == "degraded"


def start_times(api: Api, ids: Mapping[str, str]) -> dict[str, set[str]]:
    return {name: {run["expected_start_time"] for run in api.scheduled_runs(id_)} for name, id_ in ids.items()}


async def test_the_same_without_a_failure_is_applied(api: Api, repository: Repository) -> None:
    before, after = before_and_after(repository)
    await repository.deployed(*before, repository.wants("old"))
    result = await apply_to(api.url, await repository.plan(*after), atomic=True)

    assert result.status == "completed"
    assert set(actions(await repository.plan(*after)).values()) == {"unchanged"}


async def test_a_server_lost_among_the_deletes_gives_back_what_was_deleted(api: Api, repository: Repository) -> None:
    old = repository.wants("old", schedules=(TWO[0], replace(TWO[1], active=False)), paused=True, tags=("t",))
    schedules = (*TWO, every(cron="0 3 * * *", slug="goes"))
    await repository.deployed(repository.wants("changed", schedules=schedules), old, repository.wants("stuck"))
    was = standing(api, repository)
    stuck = was["stuck"]["id"]

    plan = await repository.plan(repository.wants("changed", schedules=TWO, description="new"), repository.wants("new"))
    async with proxy_to(api.url) as proxy:
        proxy.judge = first(99, "hang up", when=lambda request: request.path.endswith(stuck) and request.writes)
        result = await apply_to(proxy.api_url, plan, atomic=True, writers=Writers(patience=0.2))

    now = standing(api, repository)
    assert statuses(result) == {"changed": "restored", "new": "restored", "old": "restored", "stuck": "failed"}
    assert _without_ids(now) == _without_ids(was)
    assert now["old"]["id"] != was["old"]["id"]
    assert now["old"]["labels"]["orchestrator.source"] == "prefect.yaml:3"
    assert "new id" in str(next(item.error for item in result.results if item.deployment.endswith("/old")))
    assert {item["slug"]: item["id"] for item in now["changed"]["schedules"] if item["slug"] != "goes"} == {
        item["slug"]: item["id"] for item in was["changed"]["schedules"] if item["slug"] != "goes"
    }


def _without_ids(value: Any) -> Any:
    """Rows as they read after something was deleted and created again."""
    if isinstance(value, dict):
        gone = {"id", "created", "deployment_id"}
        return {name: _without_ids(inner) for name, inner in value.items() if name not in gone and name != "labels"}
    if isinstance(value, list):
        return sorted((_without_ids(inner) for inner in value), key=str)
    return value


async def test_a_server_that_stays_away_leaves_a_report_of_what_could_not_be_set_back(
    api: Api, repository: Repository
) -> None:
    plan = await repository.plan(*(repository.wants(name) for name in ("a", "b", "c")))
    async with proxy_to(api.url) as proxy:
        left = first(99, "hang up", when=lambda request: "a" in api.deployments_of(repository.flow))
        proxy.judge = left
        result = await apply_to(proxy.api_url, plan, atomic=True, writers=Writers(patience=0.2))

    assert statuses(result) == {"a": "failed", "b": "failed", "c": "skipped"}
    assert "could not be set back" in str(result.results[0].error)
    assert set(api.deployments_of(repository.flow)) == {"a"}
