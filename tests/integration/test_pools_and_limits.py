"""Work pools, queues and tag limits: made where missing, never changed where a person may have."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.bootstrap import ensure_limits, ensure_pool
from orchestrator.config import EnvironmentConfig, WorkPoolConfig
from orchestrator.errors import ConfigurationError, OrchestratorError
from orchestrator.server import open_server

from .api import Api, unique
from .conftest import PrefectServer
from .proxy import proxy_to


@pytest.fixture(scope="module")
def api(prefect_server: PrefectServer) -> Api:
    return Api(prefect_server.api_url)


def pool(name: str = "", **fields: Any) -> WorkPoolConfig:
    return WorkPoolConfig(name=name or unique("pool"), **{"type": "process", **fields})


async def ensured(api_url: str, config: WorkPoolConfig) -> tuple[str, bool]:
    """What `ensure_pool` says, and whether it changed anything."""
    async with open_server(api_url) as server:
        words, changed, _ = await ensure_pool(server, config)
    return words, changed


async def limits_ensured(api: Api, limits: dict[str, int]) -> tuple[str, bool]:
    async with open_server(api.url) as server:
        environment = EnvironmentConfig(name="development", concurrency_limits=limits)
        words, changed, _ = await ensure_limits(server, environment)
    return words, changed


def queues(api: Api, pool_name: str) -> dict[str, dict[str, Any]]:
    return {queue["name"]: queue for queue in api.post(f"/work_pools/{pool_name}/queues/filter")}


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
    wanted = pool(type=type_, concurrency_limit=7, description="For the shop.")

    assert await ensured(api.url, wanted) == (f"{wanted.name}: created", True)
    row = api.get(f"/work_pools/{wanted.name}")
    assert (row["type"], row["concurrency_limit"], row["description"]) == (type_, 7, "For the shop.")
    assert variables <= set(row["base_job_template"]["variables"]["properties"])
    assert set(row["base_job_template"]["job_configuration"]) >= {"command", "env"}


async def test_a_pool_that_is_there_is_not_written_to(api: Api) -> None:
    wanted = pool(queues={"tables": {"concurrency_limit": 4}})
    await ensured(api.url, wanted)
    before = api.get(f"/work_pools/{wanted.name}"), queues(api, wanted.name)

    async with proxy_to(api.url) as proxy:
        assert await ensured(proxy.api_url, wanted) == (f"{wanted.name}: there", False)
        assert proxy.writes == []
    assert (api.get(f"/work_pools/{wanted.name}"), queues(api, wanted.name)) == before


async def test_what_a_person_changed_in_a_pool_is_left_and_said(api: Api) -> None:
    wanted = pool(concurrency_limit=5, queues={"tables": {"concurrency_limit": 4}})
    await ensured(api.url, wanted)
    template = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}}}}
    api.patch(f"/work_pools/{wanted.name}", concurrency_limit=9, base_job_template=template)
    api.patch(f"/work_pools/{wanted.name}/queues/tables", concurrency_limit=1)

    words, changed = await ensured(api.url, wanted)
    assert "limit left at 9 (the file says 5)" in words
    assert "queue tables: concurrency limit left at 1 (the file says 4)" in words
    assert not changed
    row = api.get(f"/work_pools/{wanted.name}")
    assert (row["concurrency_limit"], row["base_job_template"]) == (9, template)
    assert queues(api, wanted.name)["tables"]["concurrency_limit"] == 1


async def test_a_pool_of_another_type_is_an_error_and_nothing_is_written(api: Api) -> None:
    name = api.ensure_pool(unique("pool"), "docker")
    async with proxy_to(api.url) as proxy:
        with pytest.raises(ConfigurationError, match=rf"'{name}' has the type 'docker'.* wants 'process'"):
            await ensured(proxy.api_url, pool(name, queues={"tables": {}}))
        assert proxy.writes == []


async def test_an_unknown_pool_type_says_what_to_install(api: Api) -> None:
    wanted = pool(type="zeppelin")
    with pytest.raises(OrchestratorError, match=rf"{wanted.name}.*'zeppelin'.*prefect-zeppelin"):
        await ensured(api.url, wanted)

    assert wanted.name not in {row["name"] for row in api.post("/work_pools/filter")}


# --- queues ----------------------------------------------------------------------------------------------


async def test_queues_are_created_with_their_limits_and_priorities(api: Api) -> None:
    wanted = pool(queues={"urgent": {"priority": 1}, "tables": {"priority": 7, "concurrency_limit": 4}, "plain": {}})

    words, changed = await ensured(api.url, wanted)
    found = queues(api, wanted.name)
    assert (words, changed) == (f"{wanted.name}: created; queues created: urgent, tables, plain", True)
    assert set(found) == {"default", "urgent", "tables", "plain"}
    assert found["urgent"]["priority"] == 1
    assert (found["tables"]["priority"], found["tables"]["concurrency_limit"]) == (7, 4)
    assert found["plain"]["concurrency_limit"] is None


async def test_a_new_pools_default_queue_gets_its_limit(api: Api) -> None:
    wanted = pool(queues={"default": {"concurrency_limit": 2}})
    await ensured(api.url, wanted)

    assert queues(api, wanted.name)["default"]["concurrency_limit"] == 2


async def test_a_queue_missing_in_an_old_pool_is_created(api: Api) -> None:
    old = pool()
    await ensured(api.url, old)

    words, changed = await ensured(api.url, pool(old.name, queues={"tables": {"concurrency_limit": 3}}))
    assert (words, changed) == (f"{old.name}: there; queues created: tables", True)
    assert queues(api, old.name)["tables"]["concurrency_limit"] == 3


# --- tag limits ------------------------------------------------------------------------------------------


async def test_limits_are_created_once(api: Api) -> None:
    tag = unique("database")

    assert await limits_ensured(api, {tag: 3}) == (f"{tag}: 3 created", True)
    assert await limits_ensured(api, {tag: 3}) == (f"{tag}: 3", False)
    assert api.get(f"/concurrency_limits/tag/{tag}")["concurrency_limit"] == 3


async def test_a_limit_that_a_person_changed_is_left_and_said(api: Api) -> None:
    tag = unique("database")
    api.post("/concurrency_limits/", tag=tag, concurrency_limit=1)

    assert await limits_ensured(api, {tag: 3}) == (f"{tag}: left at 1 (the file says 3)", False)
    assert api.get(f"/concurrency_limits/tag/{tag}")["concurrency_limit"] == 1


async def test_no_limits_are_none_asked_for(api: Api) -> None:
    assert await limits_ensured(api, {}) == ("none asked for", False)
