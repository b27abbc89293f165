"""Reading back after an apply, on a real server, and on one whose scheduler does not run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import live as live_commands
from orchestrator.apply import apply_plan
from orchestrator.config import Policy, ScheduleSection
from orchestrator.errors import ServerError
from orchestrator.model import (
    DeploymentConfig,
    DeploymentResult,
    Desired,
    Finding,
    LimitSpec,
    LiveDeployment,
    Owner,
    Plan,
    PoolSpec,
    QueueSpec,
    Resources,
)
from orchestrator.plan import make_plan
from orchestrator.server import open_server
from orchestrator.verify import pool_findings, verify, why_not_ready
from tests.unit.builders import cron, deployment, live

from .api import Api, unique
from .conftest import PrefectServer, free_port, is_healthy, prefect_process
from .proxy import always, first, proxy_to

NIGHTLY = (cron("0 4 * * *", slug="nightly", timezone="UTC"),)


@pytest.fixture
def owner(api: Api) -> Iterator[Owner]:
    owner = Owner(project=unique("checked"), environment="development")
    yield owner
    api.delete_deployments_of(owner.project)


def wants(owner: Owner, name: str = "daily", **fields: Any) -> DeploymentConfig:
    return deployment(f"{owner.project}/{name}", tags=(owner.tag,), **fields)


async def applied(api_url: str, owner: Owner, *configs: DeploymentConfig) -> tuple[Plan, DeploymentResult]:
    async with open_server(api_url) as server:
        there = await server.read_deployments()
        desired = Desired(owner=owner, deployments=configs)
        plan = make_plan(desired, there, api_url=api_url, policy=Policy())
        result = await apply_plan(plan, server)
        assert not result.failed, result.failed
        return plan, result


async def found_by(
    api_url: str, plan: Plan, result: DeploymentResult, patience: float = 60
) -> Mapping[str, tuple[Finding, ...]]:
    async with open_server(api_url) as server:
        return await verify(plan, result, server, patience_seconds=patience)


def words(findings: Mapping[str, tuple[Finding, ...]]) -> dict[str, list[tuple[str, str]]]:
    """Deployment or pool → severity and message of each finding."""
    return {
        place.rpartition("/")[2]: [(finding.severity, finding.message) for finding in found]
        for place, found in findings.items()
    }


async def test_what_arrived_and_gets_its_runs_is_fine(api: Api, owner: Owner) -> None:
    await applied(api.url, owner, wants(owner, "old"), wants(owner, "changed"))
    paused = wants(owner, "paused", schedules=NIGHTLY, paused=True)
    off = wants(owner, "off", schedules=(replace(NIGHTLY[0], active=False),))
    changed = wants(owner, "changed", schedules=NIGHTLY, description="new")
    plan, result = await applied(api.url, owner, wants(owner, schedules=NIGHTLY), paused, off, changed)

    assert await found_by(api.url, plan, result) == {}
    row = api.deployment(f"{owner.project}/daily")
    assert api.scheduled_runs(row["id"])  # it was waited for


async def test_what_changed_nothing_is_not_looked_at(api: Api, owner: Owner) -> None:
    await applied(api.url, owner, wants(owner))
    plan, result = await applied(api.url, owner, wants(owner))
    async with proxy_to(api.url) as proxy:
        assert await found_by(proxy.api_url, plan, result) == {}
        assert proxy.seen == []


async def test_what_somebody_changed_or_deleted_meanwhile_is_told(api: Api, owner: Owner) -> None:
    plan, result = await applied(api.url, owner, wants(owner, "a"), wants(owner, "b"), wants(owner, "c"))
    rows = api.deployments_of(owner.project)
    api.patch(f"/deployments/{rows['a']['id']}", description="by hand", parameters={"x": 1})
    api.call("DELETE", f"/deployments/{rows['b']['id']}")

    assert words(await found_by(api.url, plan, result)) == {
        "a": [("error", "it was written, but reads back differently: parameters.x, description")],
        "b": [("error", "it was written, but is not there")],
    }


async def test_a_delete_that_left_it_there_is_told(api: Api, owner: Owner) -> None:
    await applied(api.url, owner, wants(owner))
    async with open_server(api.url) as server:
        there = await server.read_deployments()
        plan = make_plan(Desired(owner=owner), there, api_url=api.url, policy=Policy())
        result = await apply_plan(plan, server)
        path = f"{owner.project}/daily"
        api.deploy(path, tags=[owner.tag])  # somebody's own, with an id of its own
        assert await verify(plan, result, server) == {}

        (change,) = plan.changes
        assert change.live is not None
        again = next(item for item in await server.read_deployments() if item.config.deployment_path == path)
        kept = replace(plan, changes=(replace(change, live=again),))
        assert words(await verify(kept, result, server)) == {"daily": [("error", "it was deleted, but is still there")]}


async def test_a_schedule_without_a_date_in_reach_is_no_fault_of_the_server(api: Api, owner: Owner) -> None:
    far = datetime.now(UTC) + timedelta(days=200)
    yearly = (cron(f"0 0 {min(far.day, 28)} {far.month} *", timezone="UTC"),)
    plan, result = await applied(api.url, owner, wants(owner, schedules=yearly))

    ((severity, message),) = words(await found_by(api.url, plan, result, patience=0.1))["daily"]
    assert (severity, "has no date in the coming 100 days" in message) == ("warning", True)


async def test_pools_that_will_not_run_it_are_told_once(api: Api, owner: Owner) -> None:
    idle, paused, managed = (api.ensure_pool(unique(name)) for name in ("idle", "paused", "managed"))
    api.patch(f"/work_pools/{paused}", is_paused=True)
    configs = [
        wants(owner, f"{pool}-{number}", work_pool=pool, work_queue="default")
        for pool in (idle, paused)
        for number in "ab"
    ]
    plan, result = await applied(api.url, owner, *configs)

    assert words(await found_by(api.url, plan, result)) == {
        f"work pool {idle}": [("warning", f"no worker is online in the pool {idle}")],
        f"work pool {paused}": [("warning", f"the work pool {paused} is paused")],
    }
    async with open_server(api.url) as server:
        elsewhere = [live(deployment(work_pool=pool)) for pool in ("no-such-pool", managed)]
        missing = await pool_findings(elsewhere, server)
    assert missing["work pool no-such-pool"].severity == "error"


async def test_a_queue_that_is_paused_is_told(api: Api, owner: Owner) -> None:
    pools = [api.ensure_pool(unique(name)) for name in ("here", "there")]
    for pool in pools:
        api.post(f"/work_pools/{pool}/workers/heartbeat", name="one")
        api.post(f"/work_pools/{pool}/queues", name="heavy")
    api.patch(f"/work_pools/{pools[0]}/queues/heavy", is_paused=True)
    configs = [wants(owner, pool, work_pool=pool, work_queue="heavy") for pool in pools]
    plan, result = await applied(api.url, owner, *configs)

    found = await found_by(api.url, plan, result)
    assert words(found) == {"heavy": [("warning", f"the work queue heavy of the pool {pools[0]} is paused")]}
    there = [replace(seen(5), config=wants(owner, work_pool=name, work_queue="heavy")) for name in pools]
    ready = [not list(why_not_ready(item, single(found), frozenset(), now=NOW)) for item in there]
    assert ready == [False, True]


def single(findings: Mapping[str, tuple[Finding, ...]]) -> dict[str, Finding]:
    return {place: finding for place, (finding,) in findings.items()}


async def test_a_pool_with_a_worker_is_fine(api: Api) -> None:
    busy = api.ensure_pool(unique("busy"))
    api.post(f"/work_pools/{busy}/workers/heartbeat", name="one")
    async with open_server(api.url) as server:
        assert await pool_findings([live(deployment(work_pool=busy))], server) == {}


async def test_a_server_that_is_gone_by_then_is_a_finding(api: Api, owner: Owner) -> None:
    plan, result = await applied(api.url, owner, wants(owner))
    async with proxy_to(api.url) as proxy, open_server(proxy.api_url) as server:
        proxy.judge = first(99, "hang up")
        with server.writing():
            findings = await verify(plan, result, server)
    (finding,) = findings[owner.tag]
    assert finding.message.startswith("It could not be read back")


@contextmanager
def other_server(home: Path, database: Path, like: PrefectServer, **settings: str) -> Iterator[Api]:
    """A server with other settings of its scheduler."""
    shutil.copy(database, home)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    prefixed = {f"PREFECT_SERVER_SERVICES_SCHEDULER_{name.upper()}": value for name, value in settings.items()}
    environment = {**like.environment, "PREFECT_HOME": str(home), "PREFECT_API_URL": url, **prefixed}
    command = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with prefect_process(command, environment, home / "server.log", ready=lambda: is_healthy(url)):
        yield Api(url)


@pytest.fixture(scope="module")
def silent(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, prefect_server: PrefectServer
) -> Iterator[Api]:
    """A server whose scheduler is off."""
    with other_server(tmp_path_factory.mktemp("silent"), empty_database, prefect_server, enabled="false") as api:
        yield api


@pytest.fixture(scope="module")
def slow(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, prefect_server: PrefectServer
) -> Iterator[Api]:
    """A server whose scheduler comes by every other hour."""
    home = tmp_path_factory.mktemp("slow")
    seldom = {"loop_seconds": "7200", "recent_deployments_loop_seconds": "7200"}
    with other_server(home, empty_database, prefect_server, **seldom) as api:
        yield api


async def test_a_scheduler_is_not_waited_for_where_there_is_one(slow: Api, owner: Owner) -> None:
    """The first run of each is there at once. The scheduler has its own time for the others."""
    both = (*NIGHTLY, cron("0 5 * * *", slug="late", timezone="UTC"))
    plan, result = await applied(
        slow.url, owner, wants(owner, schedules=NIGHTLY), wants(owner, "twice", schedules=both)
    )
    rows = slow.deployments_of(owner.project)
    assert [len(slow.scheduled_runs(rows[name]["id"])) for name in ("daily", "twice")] == [0, 0]

    async with proxy_to(slow.url) as proxy:
        assert await found_by(proxy.api_url, plan, result) == {}
        assert [request.path.rpartition("/")[2] for request in proxy.writes] == ["schedule", "schedule"]
    assert [len(slow.scheduled_runs(rows[name]["id"])) for name in ("daily", "twice")] == [1, 2]


async def test_a_server_that_cannot_make_runs_is_noticed(slow: Api, owner: Owner) -> None:
    """As with a sqlalchemy that Prefect cannot use: the scheduler fails in every round, and so does the request."""
    plan, result = await applied(slow.url, owner, wants(owner, schedules=NIGHTLY))
    async with proxy_to(slow.url) as proxy:
        proxy.judge = always("500", when=lambda request: request.path.endswith("/schedule"))
        findings = await found_by(proxy.api_url, plan, result)
    assert words(findings) == {"daily": [("error", "its schedule is active, but no run is scheduled")]}


async def test_a_server_that_schedules_nothing_is_noticed(silent: Api, owner: Owner) -> None:
    plan, result = await applied(silent.url, owner, wants(owner, schedules=NIGHTLY), wants(owner, "calm"))

    findings = await found_by(silent.url, plan, result, patience=1)
    ((severity, message),) = words(findings)["daily"]
    assert (severity, "says that its scheduler is off" in message) == ("error", True)
    assert silent.scheduled_runs(silent.deployment(f"{owner.project}/daily")["id"]) == []  # for `status` to tell


@pytest.mark.parametrize("rule", ["0 4 * * *", "far"])
async def test_a_server_that_does_not_say_is_waited_for(silent: Api, owner: Owner, rule: str) -> None:
    """As Prefect Cloud: what it says when it is asked for a run tells whether there could be any."""
    far = datetime.now(UTC) + timedelta(days=200)
    dates = (cron(f"0 0 {min(far.day, 28)} {far.month} *" if rule == "far" else rule, timezone="UTC"),)
    plan, result = await applied(silent.url, owner, wants(owner, schedules=dates))
    async with proxy_to(silent.url) as proxy:
        proxy.judge = always("500", when=lambda request: request.path.endswith("/admin/settings"))
        ((severity, message),) = words(await found_by(proxy.api_url, plan, result, patience=1))["daily"]
    if rule == "far":
        assert (severity, "no date in the coming 100 days" in message) == ("warning", True)
    else:
        assert (severity, "scheduler has made no run of it" in message) == ("error", True)


async def test_a_run_that_is_late_is_no_sign_of_a_scheduler(silent: Api, owner: Owner) -> None:
    await applied(silent.url, owner, wants(owner, schedules=NIGHTLY))
    id_ = silent.deployment(f"{owner.project}/daily")["id"]
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    silent.post(
        f"/deployments/{id_}/create_flow_run",
        state={"type": "SCHEDULED", "state_details": {"scheduled_time": yesterday}},
    )
    assert silent.scheduled_runs(id_)
    async with open_server(silent.url) as server:
        assert await server.deployments_with_scheduled_runs((id_,)) == frozenset()


async def test_a_limit_that_somebody_changed_or_deleted_meanwhile_is_told(api: Api, owner: Owner) -> None:
    limits = tuple(LimitSpec(scope="tag", name=unique(name), slots=3) for name in ("changed", "gone", "fine"))
    desired = Desired(owner=owner, resources=Resources(limits=limits))
    plan = await live_commands.plan_changes(desired, Policy(), api_url=api.url)
    result = await live_commands.apply_changes(plan, api_url=api.url)
    assert result.status == "completed"
    ids = {limit.name: api.get(f"/concurrency_limits/tag/{limit.name}")["id"] for limit in limits}
    changed, gone, _ = (limit.name for limit in limits)
    api.post("/concurrency_limits/", tag=changed, concurrency_limit=5)
    api.call("DELETE", f"/concurrency_limits/{ids[gone]}")

    found = await found_by(api.url, plan, result)
    assert {place: finding.message for place, (finding,) in found.items()} == {
        f"tag limit {changed}": "it was written, but reads back differently: slots",
        f"tag limit {gone}": "it was written, but is not there",
    }


async def test_a_queue_that_was_written_is_read_with_its_pool(api: Api, owner: Owner) -> None:
    pool = PoolSpec(name=api.ensure_pool(unique("pool")), type="process")
    queue = QueueSpec(pool=pool.name, name="heavy", concurrency_limit=2)
    desired = Desired(owner=owner, resources=Resources(pools=(pool,), queues=(queue,)))
    plan = await live_commands.plan_changes(desired, Policy(), api_url=api.url)
    assert [change.action for change in plan.resources] == ["unchanged", "create"]
    result = await live_commands.apply_changes(plan, api_url=api.url)
    assert (result.status, result.findings) == ("completed", {})


NOW = datetime(2026, 11, 22, tzinfo=UTC)


def seen(minutes_ago: int, **fields: Any) -> LiveDeployment:
    changed_at = (NOW - timedelta(minutes=minutes_ago)).isoformat()
    return replace(live(deployment(work_pool="p", **fields)), changed_at=changed_at)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (seen(5, schedules=NIGHTLY), ["its schedule is active, but no run is scheduled"]),
        (seen(1, schedules=NIGHTLY), []),  # the scheduler has not had its time
        (seen(5, schedules=NIGHTLY, paused=True), []),
        (seen(5, schedules=(replace(NIGHTLY[0], active=False),)), []),
        (seen(5), []),
    ],
)
def test_a_status_tells_what_is_not_scheduled(item: LiveDeployment, expected: list[str]) -> None:
    assert [finding.message for finding in why_not_ready(item, {}, frozenset(), now=NOW)] == expected
    assert list(why_not_ready(item, {}, frozenset({item.id}), now=NOW)) == []


def test_a_status_tells_what_is_wrong_with_the_pool() -> None:
    paused = Finding(message="the work pool p is paused")
    pools = {"work pool p": paused, "work pool q": paused}
    assert list(why_not_ready(seen(5), pools, frozenset(), now=NOW)) == [paused]


async def test_scheduled_runs_are_found_however_many_one_deployment_has(api: Api, owner: Owner) -> None:
    often = [
        wants(owner, f"often-{number}", schedules=(ScheduleSection(interval=60).to_schedule(),)) for number in "abc"
    ]
    await applied(api.url, owner, *often, wants(owner, "late", schedules=NIGHTLY))
    rows = api.deployments_of(owner.project)
    for row in rows.values():
        for _ in range(3):
            api.schedule_runs(row["id"])
    ids = [row["id"] for row in rows.values()]
    async with open_server(api.url) as server:
        assert await server.deployments_with_scheduled_runs(ids) == frozenset(ids)
        assert await server.deployments_with_scheduled_runs(()) == frozenset()
        with pytest.raises(ServerError):
            await server.deployments_with_scheduled_runs(("no id",))
