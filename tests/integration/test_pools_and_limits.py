"""Work pools, queues and limits on a real server: planned, applied, and set back."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from orchestrator import live, pools
from orchestrator import server as server_door
from orchestrator.bootstrap import ensure_resources
from orchestrator.config import EnvironmentConfig, Policy
from orchestrator.errors import ConfigurationError, OrchestratorError
from orchestrator.model import (
    DeploymentResult,
    Desired,
    EnvironmentStatus,
    LimitSpec,
    Owner,
    Plan,
    PoolSpec,
    QueueSpec,
    ResourceChange,
    ResourceResult,
    Resources,
)
from orchestrator.plan_report import notes
from orchestrator.resources import apply_resources, plan_resources, resources_of, undo
from orchestrator.revision_report import history_text
from orchestrator.revisions import RevisionStore
from orchestrator.server import open_server
from orchestrator.terms import Terms

from .api import Api, unique
from .proxy import proxy_to


def wanted(name: str = "", *, limits: dict[str, int] | None = None, **fields: Any) -> Resources:
    """What an environment with one pool declares."""
    pool = {"name": name or unique("pool"), "type": "process", **fields}
    return declared(work_pools={"python": pool}, concurrency_limits=limits or {})


def declared(**fields: Any) -> Resources:
    return resources_of(EnvironmentConfig.model_validate({"name": "development", **fields}))


async def planned(api_url: str, resources: Resources) -> tuple[ResourceChange, ...]:
    async with open_server(api_url) as server:
        return plan_resources(resources, await pools.read_resources(server, resources))


async def applied(api_url: str, changes: tuple[ResourceChange, ...]) -> tuple[ResourceResult, ...]:
    async with open_server(api_url) as server:
        return await apply_resources(changes, pools.ResourceDoor(server))


async def settled(api: Api, resources: Resources) -> list[str]:
    """Apply what differs; returns the actions. A second plan must find nothing more to do."""
    changes = await planned(api.url, resources)
    results = await applied(api.url, changes)
    assert {result.status for result in results} <= {"applied", "unchanged"}, results
    again = await planned(api.url, resources)
    assert [change for change in again if change.action != "unchanged"] == []
    return [change.action for change in changes]


def queues(api: Api, pool_name: str) -> dict[str, dict[str, Any]]:
    return {queue["name"]: queue for queue in api.post(f"/work_pools/{pool_name}/queues/filter")}


def priorities(api: Api, pool_name: str) -> dict[str, int]:
    return {name: queue["priority"] for name, queue in queues(api, pool_name).items()}


# --- pools -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "variables"),
    [
        ("process", {"env", "command", "working_dir", "stream_output"}),
        ("docker", {"env", "command", "image", "image_pull_policy", "mem_limit", "volumes", "networks"}),
    ],
)
async def test_a_missing_pool_is_created_with_the_full_template_of_its_type(
    api: Api, type_: str, variables: set[str]
) -> None:
    resources = wanted(type=type_, concurrency_limit=7, description="For the shop.")

    assert await settled(api, resources) == ["create"]
    row = api.get(f"/work_pools/{resources.pools[0].name}")
    assert (row["type"], row["concurrency_limit"], row["description"]) == (type_, 7, "For the shop.")
    assert variables <= set(row["base_job_template"]["variables"]["properties"])
    assert set(row["base_job_template"]["job_configuration"]) >= {"command", "env"}


async def test_what_is_as_declared_is_not_written_to(api: Api) -> None:
    tag, name = unique("database"), unique("api-calls")
    resources = declared(
        work_pools={"python": {"name": unique("pool"), "type": "process", "queues": {"tables": {"priority": 4}}}},
        concurrency_limits={tag: 3},
        global_concurrency_limits={name: {"limit": 5, "slot_decay_per_second": 0.5}},
    )
    await settled(api, resources)

    async with proxy_to(api.url) as proxy:
        await applied(proxy.api_url, await planned(proxy.api_url, resources))
        assert proxy.writes == []


async def test_only_what_is_declared_and_differs_is_set_back(api: Api) -> None:
    resources = wanted(concurrency_limit=5, queues={"tables": {"concurrency_limit": 4}})
    name = resources.pools[0].name
    await settled(api, resources)
    template = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}}}}
    person = {"base_job_template": template, "is_paused": True, "description": "A person's words."}
    api.patch(f"/work_pools/{name}", concurrency_limit=9, **person)
    api.patch(f"/work_pools/{name}/queues/tables", concurrency_limit=1, is_paused=True)

    assert await settled(api, resources) == ["update", "update"]
    row, queue = api.get(f"/work_pools/{name}"), queues(api, name)["tables"]
    assert row["concurrency_limit"] == 5
    assert {key: row[key] for key in person} == person
    assert (queue["concurrency_limit"], queue["is_paused"]) == (4, True)


async def test_a_pool_of_another_type_is_a_conflict_and_nothing_is_written(api: Api) -> None:
    name = api.ensure_pool(unique("pool"), "docker")
    async with proxy_to(api.url) as proxy:
        changes = await planned(proxy.api_url, wanted(name, queues={"tables": {}}))
        results = await applied(proxy.api_url, changes)
        assert proxy.writes == []
    assert [change.action for change in changes] == ["conflict", "conflict"]
    assert [result.status for result in results] == ["skipped", "skipped"]
    assert results[0].error == f"the pool {name!r} has the type 'docker'; this environment wants 'process'"


async def test_an_unknown_pool_type_fails_and_the_others_go_on(api: Api) -> None:
    tag = unique("database")
    resources = wanted(type="zeppelin", limits={tag: 3})

    pool, limit = await applied(api.url, await planned(api.url, resources))
    assert (pool.status, limit.status) == ("failed", "applied")
    assert "'zeppelin'" in str(pool.error) and "prefect-zeppelin" in str(pool.error)
    assert resources.pools[0].name not in {row["name"] for row in api.post("/work_pools/filter")}


async def test_a_pool_that_somebody_creates_meanwhile_is_as_good(api: Api) -> None:
    resources = wanted(concurrency_limit=2)
    changes = await planned(api.url, resources)
    name = api.ensure_pool(resources.pools[0].name)

    (result,) = await applied(api.url, changes)
    assert (result.status, result.action) == ("applied", "update")
    assert api.get(f"/work_pools/{name}")["concurrency_limit"] == 2


async def test_a_pool_of_another_type_that_somebody_creates_meanwhile_is_left(api: Api) -> None:
    resources = wanted(concurrency_limit=2)
    changes = await planned(api.url, resources)
    name = api.ensure_pool(resources.pools[0].name, "docker")

    (result,) = await applied(api.url, changes)
    assert result.status == "failed" and "'docker'" in str(result.error)
    assert api.get(f"/work_pools/{name}")["concurrency_limit"] is None


# --- queues ----------------------------------------------------------------------------------------------


async def test_queues_are_created_with_their_limits_and_priorities(api: Api) -> None:
    resources = wanted(
        queues={"plain": {}, "tables": {"priority": 7, "concurrency_limit": 4}, "urgent": {"priority": 1}}
    )

    assert await settled(api, resources) == ["create"] * 4
    found = queues(api, resources.pools[0].name)
    assert set(found) == {"default", "urgent", "tables", "plain"}
    assert found["urgent"]["priority"] == 1
    assert (found["tables"]["priority"], found["tables"]["concurrency_limit"]) == (7, 4)
    assert found["plain"]["concurrency_limit"] is None


async def test_a_new_pools_default_queue_gets_its_limit(api: Api) -> None:
    resources = wanted(queues={"default": {"concurrency_limit": 2}})
    await settled(api, resources)

    assert queues(api, resources.pools[0].name)["default"]["concurrency_limit"] == 2


async def test_a_queue_missing_in_an_old_pool_is_created(api: Api) -> None:
    name = wanted().pools[0].name
    await settled(api, wanted(name))

    assert await settled(api, wanted(name, queues={"tables": {"concurrency_limit": 3}})) == ["unchanged", "create"]
    assert queues(api, name)["tables"]["concurrency_limit"] == 3


async def test_names_with_characters_of_addresses(api: Api) -> None:
    name, tag = unique("pool #1?"), unique("a b#c?")
    await settled(api, wanted(name, concurrency_limit=1, queues={"q #1?": {"concurrency_limit": 1}}, limits={tag: 1}))

    changed = wanted(name, concurrency_limit=2, queues={"q #1?": {"concurrency_limit": 2}}, limits={tag: 2})
    assert await settled(api, changed) == ["update"] * 3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({"a": 5, "b": 3}, {"a": 2, "b": 3}),  # `a` comes before `default`, which stands at 1 or 2, and pushes
        ({"a": 1, "b": 2, "c": 3}, {"c": 1, "a": 2, "b": 3}),
        ({"a": 1}, {"new": 1, "a": 2}),
        ({"b": 1, "c": 2, "a": 3}, {"a": 1, "c": 2}),
    ],
)
async def test_priorities_come_to_rest_in_one_apply(api: Api, before: dict[str, int], after: dict[str, int]) -> None:
    name = unique("pool")
    await settled(api, wanted(name, queues={queue: {"priority": value} for queue, value in before.items()}))

    await settled(api, wanted(name, queues={queue: {"priority": value} for queue, value in after.items()}))
    assert after.items() <= priorities(api, name).items()


# --- limits ----------------------------------------------------------------------------------------------


async def test_tag_limits_are_created_and_set(api: Api) -> None:
    tag = unique("database")

    assert await settled(api, declared(concurrency_limits={tag: 3})) == ["create"]
    assert await settled(api, declared(concurrency_limits={tag: 2})) == ["update"]
    assert api.get(f"/concurrency_limits/tag/{tag}")["concurrency_limit"] == 2


async def test_global_limits_are_created_and_set_and_what_is_not_declared_is_left(api: Api) -> None:
    name = unique("api-calls")

    assert await settled(api, declared(global_concurrency_limits={name: 3})) == ["create"]
    api.patch(f"/v2/concurrency_limits/{name}", slot_decay_per_second=0.25)
    assert await settled(api, declared(global_concurrency_limits={name: 4})) == ["update"]
    row = api.get(f"/v2/concurrency_limits/{name}")
    assert (row["limit"], row["slot_decay_per_second"]) == (4, 0.25)

    wanted_rate = declared(global_concurrency_limits={name: {"limit": 4, "slot_decay_per_second": 2}})
    assert await settled(api, wanted_rate) == ["update"]
    assert api.get(f"/v2/concurrency_limits/{name}")["slot_decay_per_second"] == 2


async def test_a_tag_and_a_global_limit_of_one_name_are_two(api: Api) -> None:
    name = unique("database")
    resources = declared(concurrency_limits={name: 3}, global_concurrency_limits={name: 5})

    assert await settled(api, resources) == ["create", "create"]
    assert api.get(f"/concurrency_limits/tag/{name}")["concurrency_limit"] == 3
    assert api.get(f"/v2/concurrency_limits/{name}")["limit"] == 5


async def test_more_limits_and_queues_than_a_page_holds(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_door, "PAGE", 5)  # each new queue makes the server renumber all others: 200 take minutes
    prefix, name = unique("many"), unique("pool")
    # Global limits come first in the server's order: its own list of tag limits loses as many tags.
    shared = {f"{prefix}-{number:03}": 1 for number in range(7)}
    tags = {f"{prefix}-{number:03}": 1 for number in range(7)}
    many = {f"q-{number:03}": {} for number in range(12)}
    resources = declared(
        work_pools={"python": {"name": name, "type": "process", "queues": many}},
        concurrency_limits=tags,
        global_concurrency_limits=shared,
    )

    assert await settled(api, resources) == ["create"] * (1 + 12 + 14)
    api.call("DELETE", f"/work_pools/{name}")
    for each in tags:
        api.call("DELETE", f"/concurrency_limits/tag/{each}")
        api.call("DELETE", f"/v2/concurrency_limits/{each}")


# --- what is read ----------------------------------------------------------------------------------------


async def test_of_what_nothing_is_declared_nothing_is_read(api: Api) -> None:
    async with proxy_to(api.url) as proxy:
        before = len(proxy.seen)
        assert await planned(proxy.api_url, Resources()) == ()
        assert await planned(proxy.api_url, wanted())
        paths = [request.path.removeprefix("/api") for request in proxy.seen[before:]]
    assert [path for path in paths if "version" not in path and "csrf" not in path] == ["/work_pools/filter"]


# --- setting back ----------------------------------------------------------------------------------------


async def test_what_was_applied_is_set_back(api: Api) -> None:
    old, new, tag, fresh = unique("pool"), unique("pool"), unique("tag"), unique("tag")
    await settled(api, wanted(old, concurrency_limit=5, queues={"a": {"priority": 1}, "b": {"priority": 2}}))
    api.post("/concurrency_limits/", tag=tag, concurrency_limit=1)
    before = priorities(api, old)
    resources = declared(
        work_pools={
            "python": {
                "name": old,
                "type": "process",
                "concurrency_limit": 6,
                "description": "New words.",
                "queues": {"b": {"priority": 1}, "a": {"priority": 2}, "c": {"priority": 3}},
            },
            "docker": {"name": new, "type": "docker", "queues": {"default": {"concurrency_limit": 1}, "x": {}}},
        },
        concurrency_limits={tag: 2, fresh: 3},
        global_concurrency_limits={fresh: 4},
    )
    changes = await planned(api.url, resources)

    async with open_server(api.url) as server:
        door = pools.ResourceDoor(server)
        results = await apply_resources(changes, door)
        restored = await undo(changes, results, door)
    assert {result.status for result in results} == {"applied"}
    assert {result.status for result in restored} == {"restored"}
    row = api.get(f"/work_pools/{old}")
    assert (row["concurrency_limit"], row["description"]) == (5, None)
    assert {name: value for name, value in priorities(api, old).items() if name != "default"} == {
        name: value for name, value in before.items() if name != "default"
    }
    assert new not in {row["name"] for row in api.post("/work_pools/filter")}
    assert api.get(f"/concurrency_limits/tag/{tag}")["concurrency_limit"] == 1
    names = {row["name"] for row in api.post("/v2/concurrency_limits/filter")}
    assert not names & {fresh, f"tag:{fresh}"}


async def test_a_new_pool_that_deployments_have_come_into_stays(api: Api) -> None:
    resources = wanted(queues={"x": {}})
    changes = await planned(api.url, resources)
    async with open_server(api.url) as server:
        door = pools.ResourceDoor(server)
        results = await apply_resources(changes, door)
        flow = unique("flow")
        api.deploy(f"{flow}/daily", work_pool_name=resources.pools[0].name)
        pool, _ = await undo(changes, results, door)
    assert pool.status == "applied" and "has deployments (1)" in str(pool.error)
    assert api.deployment(f"{flow}/daily")["work_pool_name"] == resources.pools[0].name
    api.delete_deployments_of(flow)


async def test_what_somebody_else_created_meanwhile_stays(api: Api) -> None:
    resources = wanted()
    changes = await planned(api.url, resources)
    name = api.ensure_pool(resources.pools[0].name)
    async with open_server(api.url) as server:
        door = pools.ResourceDoor(server)
        await undo(changes, await apply_resources(changes, door), door)
    assert api.get(f"/work_pools/{name}")


# --- who moved -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Environment:
    """One environment of a project of its own, which declares a task tag limit and nothing else."""

    owner: Owner
    api_url: str
    tag: str

    async def plan(self, slots: int) -> Plan:
        desired = Desired(owner=self.owner, resources=declared(concurrency_limits={self.tag: slots}))
        return await live.plan_changes(desired, Policy(), api_url=self.api_url)

    async def apply(self, slots: int, *, is_reviewed: bool = False) -> DeploymentResult:
        found = await self.plan(slots)
        return await live.apply_changes(found, api_url=self.api_url, terms=Terms(is_reviewed=is_reviewed))

    async def status(self, slots: int) -> EnvironmentStatus:
        desired = Desired(owner=self.owner, resources=declared(concurrency_limits={self.tag: slots}))
        return await live.read_status(desired, Policy(), "", self.api_url)

    async def history(self) -> list[str]:
        """As people see it, without the heading."""
        async with open_server(self.api_url) as server:
            revisions = await RevisionStore(server, self.owner).history()
        output = StringIO()
        Console(file=output, width=200).print(history_text(self.owner.environment, revisions))
        return output.getvalue().splitlines()[1:]


@pytest.fixture
def environment(api: Api) -> Environment:
    return Environment(Owner(project=unique("shop"), environment="development"), api.url, unique("database"))


def told(plan: Plan) -> tuple[str, tuple[str, ...], list[str]]:
    """Action, reasons and the causes of the differences of a plan's one change."""
    (change,) = plan.resources
    return change.action, change.reasons, [diff.cause for diff in change.fields]


def set_on_server(api: Api, tag: str, slots: int) -> None:
    api.post("/concurrency_limits/", tag=tag, concurrency_limit=slots)


async def test_a_plan_says_who_changed_a_limit(api: Api, environment: Environment) -> None:
    assert told(await environment.plan(3)) == ("create", ("not on the server",), [""])
    assert (await environment.apply(3)).revision == 1
    assert told(await environment.plan(4)) == ("update", ("the repository changed: slots",), ["repository"])

    set_on_server(api, environment.tag, 5)
    plan = await environment.plan(3)
    assert told(plan) == ("update", ("somebody changed the server: slots",), ["server"])
    assert notes(plan) == ("1 pool or limit changed on the server since revision 1",)
    assert told(await environment.plan(4)) == ("update", ("changed on both sides: slots",), ["both"])

    set_on_server(api, environment.tag, 4)
    assert (await environment.plan(4)).has_changes is False


async def test_a_plan_says_that_somebody_deleted_a_limit(api: Api, environment: Environment) -> None:
    await environment.apply(3)
    api.call("DELETE", f"/concurrency_limits/tag/{environment.tag}")
    plan = await environment.plan(3)
    assert told(plan) == ("create", ("somebody deleted it from the server after revision 1",), ["server"])
    assert notes(plan) == ("1 pool or limit changed on the server since revision 1",)


async def test_status_says_who_changed_a_limit(api: Api, environment: Environment) -> None:
    await environment.apply(3)
    set_on_server(api, environment.tag, 5)
    (change,) = (await environment.status(3)).resources
    assert change.reasons == ("somebody changed the server: slots",)


async def test_a_reviewed_plan_with_causes_is_carried_out(api: Api, environment: Environment) -> None:
    await environment.apply(3)
    set_on_server(api, environment.tag, 5)
    result = await environment.apply(3, is_reviewed=True)
    assert [item.status for item in result.resources] == ["applied"]


async def test_history_counts_limits_and_reads_what_has_no_such_counts(api: Api, environment: Environment) -> None:
    await environment.apply(3)
    await environment.apply(4)
    last, first = await environment.history()
    assert "+0 ~0 -0, pools and limits +0 ~1" in last and "+0 ~0 -0, pools and limits +1 ~0" in first

    rows = api.post("/block_documents/filter", block_documents={"name": {"like_": environment.owner.project}})
    for row in rows:  # as older versions wrote them
        data = {name: value for name, value in row["data"].items() if name != "resource_summary"}
        api.patch(f"/block_documents/{row['id']}", data=data, merge_existing_data=False)
    for line in await environment.history():
        assert "+0 ~0 -0" in line and "pools" not in line


# --- bootstrap -------------------------------------------------------------------------------------------


async def test_bootstrap_says_what_it_did(api: Api) -> None:
    tag = unique("database")
    resources = wanted(concurrency_limit=1, limits={tag: 3})
    name = resources.pools[0].name
    async with open_server(api.url) as server:
        assert await ensure_resources(server, resources) == (f"{name}: created; {tag}: created", True, None)
        assert await ensure_resources(server, resources) == (f"{name}: there; {tag}: there", False, None)
        api.patch(f"/work_pools/{name}", concurrency_limit=9)
        gone_back = await ensure_resources(server, resources, keeps=True)
        assert (gone_back, api.get(f"/work_pools/{name}")["concurrency_limit"]) == ((f"{tag}: there", False, None), 9)
        words, changed, _ = await ensure_resources(server, resources)
        assert (words, changed) == (f"{name}: concurrency limit 9 → 1; {tag}: there", True)
        assert await ensure_resources(server, Resources()) == ("none asked for", False, None)


async def test_bootstrap_stops_at_a_pool_of_another_type_before_it_writes(api: Api) -> None:
    name = api.ensure_pool(unique("pool"), "docker")
    async with proxy_to(api.url) as proxy, open_server(proxy.api_url) as server:
        with pytest.raises(ConfigurationError, match=rf"'{name}' has the type 'docker'.* wants 'process'"):
            await ensure_resources(server, wanted(name, queues={"tables": {}}, limits={unique("tag"): 1}))
        assert proxy.writes == []


async def test_bootstrap_stops_at_an_unknown_type(api: Api) -> None:
    resources = wanted(type="zeppelin")
    async with open_server(api.url) as server:
        with pytest.raises(OrchestratorError, match=rf"{resources.pools[0].name}.*'zeppelin'.*prefect-zeppelin"):
            await ensure_resources(server, resources)


def test_the_specs_are_what_the_environment_says() -> None:
    resources = declared(
        work_pools={"python": {"name": "p", "type": "process", "queues": {"q": {"priority": 2}}}},
        concurrency_limits={"t": 1},
        global_concurrency_limits={"g": 2},
    )
    assert resources == Resources(
        pools=(PoolSpec(name="p", type="process"),),
        queues=(QueueSpec(pool="p", name="q", priority=2),),
        limits=(LimitSpec(scope="tag", name="t", slots=1), LimitSpec(scope="global", name="g", slots=2)),
    )
