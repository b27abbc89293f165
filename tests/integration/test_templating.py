"""Blocks and variables in desired deployments, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from orchestrator.model import DeploymentConfig, Desired, Owner
from orchestrator.server import PrefectServer, open_server
from orchestrator.templating import resolve
from tests.unit.builders import deployment

from .api import Api, unique

SECRET = "hush-hush"
SOURCE = "prefect.yaml:3"
OWNER = Owner(project="shop", environment="development")


@pytest.fixture(scope="module")
def variable(api: Api) -> Iterator[str]:
    name = unique("v").replace("-", "_")
    row = api.post("/variables/", name=name, value={"inner": [1, True]})
    yield name
    api.call("DELETE", f"/variables/{row['id']}")


@pytest.fixture(scope="module")
def block(api: Api) -> Iterator[str]:
    """The name of a secret block whose value is a mapping."""
    type_id = api.get("/block_types/slug/secret")["id"]
    (schema, *_) = api.post("/block_schemas/filter", block_schemas={"block_type_id": {"any_": [type_id]}})
    values = {"token": SECRET, "port": 5432, "list": [{"name": "deep-in-it"}], "on": True}
    row = api.post(
        "/block_documents/",
        name=unique("b"),
        data={"value": values},
        block_type_id=type_id,
        block_schema_id=schema["id"],
    )
    yield f"prefect.blocks.secret.{row['name']}"
    api.call("DELETE", f"/block_documents/{row['id']}")


@pytest.fixture
async def server(api: Api) -> AsyncIterator[PrefectServer]:
    async with open_server(api.url) as server:
        yield server


async def resolved(server: PrefectServer, *configs: DeploymentConfig) -> Desired:
    return await resolve(Desired(owner=OWNER, deployments=configs), server)


async def parameters(server: PrefectServer, **values: Any) -> dict[str, Any]:
    found = await resolved(server, deployment(source=SOURCE, parameters=values))
    assert found.problems == ()
    return dict(found.deployments[0].parameters)


async def test_a_whole_text_keeps_the_type_of_its_value(server: PrefectServer, variable: str, block: str) -> None:
    given = {
        "a": f"{{{{ prefect.variables.{variable} }}}}",
        "b": f"{{{{ {block}.port }}}}",
        "c": f"{{{{ {block}.on }}}}",
    }
    assert await parameters(server, **given) == {"a": {"inner": [1, True]}, "b": 5432, "c": True}


async def test_inside_of_a_text(server: PrefectServer, variable: str, block: str) -> None:
    text = f"<{{{{ {block}.token }}}}:{{{{ {block}.list[0].name }}}}:{{{{ prefect.variables.{variable} }}}}>"
    assert await parameters(server, a=text) == {"a": f"<{SECRET}:deep-in-it:{{'inner': [1, True]}}>"}


async def test_values_of_blocks_are_concealed(server: PrefectServer, variable: str, block: str) -> None:
    given = {
        "a": f"{{{{ {block}.token }}}}",
        "b": f"x{{{{ {block}.port }}}}",
        "c": f"{{{{ prefect.variables.{variable} }}}}",
    }
    (config,) = (await resolved(server, deployment(job_variables=given))).deployments
    assert config.concealed == (SECRET, "5432")
    assert SECRET not in repr(config).replace(repr(config.job_variables), "")


async def test_each_is_read_once_for_all_deployments(
    server: PrefectServer, variable: str, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    send = server.client._client.send

    async def noted(request: Any, *arguments: Any, **more: Any) -> Any:
        asked.append(request.url.path)
        return await send(request, *arguments, **more)

    monkeypatch.setattr(server.client._client, "send", noted)
    given = {
        "a": f"{{{{ {block}.token }}}}",
        "b": f"{{{{ {block}.port }}}}",
        "c": f"{{{{ prefect.variables.{variable} }}}}",
    }
    await resolved(server, *(deployment(f"etl/{number}", parameters=given) for number in range(5)))
    assert len(asked) == 2
    asked.clear()
    await resolved(server, deployment(parameters={"a": "nothing to fill"}))
    assert asked == []


async def test_what_the_server_does_not_have_takes_out_one_deployment(
    server: PrefectServer, variable: str, block: str
) -> None:
    missing = {
        "v": "{{ prefect.variables.there_is_none }}",
        "b": "{{ prefect.blocks.secret.there-is-none }}",
        "t": "{{ prefect.blocks.there-is-none.x }}",
        "k": f"{{{{ {block}.there_is_none }}}}",
        "good": f"{{{{ {block}.token }}}}",
        "short": "{{ prefect.blocks.secret }}",
        "mapping": f"<{{{{ {block} }}}}>",
    }
    sound = deployment("etl/sound", parameters={"a": missing["good"]})
    found = await resolved(server, deployment(source=SOURCE, parameters=missing), sound)

    assert [config.deployment_path for config in found.deployments] == ["etl/sound"]
    assert found.skipped_paths == ("etl/daily",)
    reasons = {each.message.partition("parameters.")[2].partition(": ")[0]: each for each in found.problems}
    assert sorted(reasons) == ["b", "k", "mapping", "short", "t", "v"]
    assert {(each.code, each.location, each.skips) for each in found.problems} == {("DPL016", SOURCE, True)}
    assert "there is no variable 'there_is_none'" in reasons["v"].message
    assert "prefect variable set there_is_none" in reasons["v"].remediation
    assert "there is no block 'there-is-none' of the type 'secret'" in reasons["b"].message
    assert "holds no such value" in reasons["k"].message
    assert "is no text" in reasons["mapping"].message
    assert SECRET not in str(found.problems)


async def test_a_variable_may_name_the_deployment_and_its_tags(server: PrefectServer, api: Api) -> None:
    name = unique("v").replace("-", "_")
    row = api.post("/variables/", name=name, value=["b", "a"])
    text = f"{{{{ prefect.variables.{name} }}}}"
    try:
        (config,) = (await resolved(server, deployment("etl/daily", tags=(text, OWNER.tag)))).deployments
        assert config.tags == ("b", "a", OWNER.tag)
        found = await resolved(server, deployment(f"etl/{text}", source=SOURCE))
        assert "deployment_name: its value is a list, and a text is needed" in found.problems[0].message
    finally:
        api.call("DELETE", f"/variables/{row['id']}")


async def test_what_a_value_holds_is_filled_in_turn(
    server: PrefectServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFORMANCE_PLACE", "Vienna")
    name = unique("v").replace("-", "_")
    row = api.post("/variables/", name=name, value="in {{ $CONFORMANCE_PLACE }}")
    try:
        assert await parameters(server, a=f"{{{{ prefect.variables.{name} }}}}") == {"a": "in Vienna"}
        monkeypatch.delenv("CONFORMANCE_PLACE")
        found = await resolved(server, deployment(parameters={"a": f"{{{{ prefect.variables.{name} }}}}"}))
        assert "the environment variable CONFORMANCE_PLACE is not set" in found.problems[0].message
    finally:
        api.call("DELETE", f"/variables/{row['id']}")
