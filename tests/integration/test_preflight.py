"""Preflight asks a real server, and says of a change what that server says of it, or should have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.errors import ServerError
from orchestrator.facts import misfits, read_facts
from orchestrator.model import Change, DeploymentConfig, Finding, PoolSpec, QueueSpec, Resources
from orchestrator.preflight import ServerFacts, findings
from orchestrator.server import open_server
from tests.unit.builders import cron, deployment

from .api import Api, unique
from .conftest import Worker
from .proxy import proxy_to

SIGNATURE = {"type": "object", "properties": {"rows": {"type": "integer"}, "day": {"type": "string"}}}


@pytest.fixture(scope="module")
def pool(api: Api) -> str:
    """A process pool with the full template of its type."""
    template = {
        "job_configuration": {"command": "{{ command }}", "env": "{{ env }}"},
        "variables": {
            "type": "object",
            "properties": {
                "command": {"type": "string", "title": "Command"},
                "env": {"type": "object", "additionalProperties": {"type": "string"}},
                "stream_output": {"type": "boolean", "default": True},
            },
        },
    }
    return api.ensure_pool(unique("preflight"), template=template)


@pytest.fixture(scope="module")
def secret(api: Api) -> Iterator[str]:
    """The name of a Secret block."""
    types = {row["slug"]: row["id"] for row in api.post("/block_types/filter")}
    (schema, *_) = api.post("/block_schemas/filter", block_schemas={"block_type_id": {"any_": [types["secret"]]}})
    body = {"block_type_id": types["secret"], "block_schema_id": schema["id"], "data": {"value": "hunter2"}}
    row = api.post("/block_documents/", name=unique("password"), **body)
    yield row["name"]
    api.call("DELETE", f"/block_documents/{row['id']}")


def creating(config: DeploymentConfig) -> Change:
    return Change(action="create", deployment=config.deployment_path, desired=config)


async def facts_for(url: str, *configs: DeploymentConfig, wanted: Resources | None = None) -> ServerFacts:
    async with open_server(url) as server:
        return await read_facts(server, [creating(config) for config in configs], wanted or Resources())


async def said(api: Api, wanted: Resources | None = None, **fields: Any) -> list[Finding]:
    """What is said against creating a deployment, but for that no worker is online."""
    config = deployment(f"{unique('flow')}/daily", **{"work_queue": "default", **fields})
    found = findings(creating(config), await facts_for(api.url, config, wanted=wanted), misfits)
    return [finding for finding in found if "No worker is online" not in finding.message]


# --- what the server says itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"job_variables": {"command": "x", "env": {"A": "1"}, "stream_output": None}},
        {"job_variables": {"command": None}},
        {"job_variables": {"command": 5}},
        {"job_variables": {"env": {"A": 1}}},
        {"job_variables": {"env": "A=1"}},
        {"job_variables": {"env": "{{ nothing }}"}},
        {"job_variables": {"stream_output": "yes"}},
        {"parameters": {"rows": 1}},
        {"parameters": {}},
        {"parameters": {"rows": "1"}},
        {"parameters": {"rows": "{{ nothing }}"}},
        {"parameters": {"rows": "1"}, "enforce_parameter_schema": False},
        {"work_pool": "no-such-pool"},
    ],
)
async def test_what_is_an_error_here_is_refused_there_and_nothing_else(
    api: Api, pool: str, fields: dict[str, Any]
) -> None:
    flow = unique("flow")
    config = deployment(f"{flow}/daily", **{"work_pool": pool, "parameter_schema": SIGNATURE, **fields})

    errors = [finding for finding in await said(api, **_fields(config)) if finding.severity == "error"]
    async with open_server(api.url) as server:
        if errors:
            with pytest.raises(ServerError):
                await server.create_deployment(config, {})
        else:
            await server.create_deployment(config, {})
    api.delete_deployments_of(flow)


def _fields(config: DeploymentConfig) -> dict[str, Any]:
    names = ("work_pool", "job_variables", "parameters", "parameter_schema", "enforce_parameter_schema")
    return {name: getattr(config, name) for name in names}


# --- what it takes in silence ----------------------------------------------------------------------------


async def test_unknown_parameters_are_errors_and_unknown_job_variables_warnings(api: Api, pool: str) -> None:
    schedule = cron(slug="nightly", parameters={"rows": "many"})
    fields = {"job_variables": {"comand": "x"}, "parameters": {"rwos": 1}, "schedules": (schedule,)}

    found = await said(api, work_pool=pool, parameter_schema=SIGNATURE, **fields)
    assert [finding.severity for finding in found] == ["error", "error", "warning"]
    assert [found[index].remedy.split("?")[0] for index in (0, 2)] == ["Did you mean 'rows'", "Did you mean 'command'"]
    assert "schedules[nightly].parameters.rows" in found[1].message


async def test_a_queue_that_there_is_not_is_a_warning(api: Api, pool: str) -> None:
    (finding,) = await said(api, work_pool=pool, work_queue="defualt")
    assert finding.severity == "warning" and "Did you mean 'default'?" in finding.remedy


async def test_a_paused_pool(api: Api) -> None:
    name = api.ensure_pool(unique("paused"))
    api.patch(f"/work_pools/{name}", is_paused=True)
    (finding,) = await said(api, work_pool=name)
    assert (finding.severity, "paused" in finding.message) == ("warning", True)


async def test_references_that_there_are_and_are_not(api: Api, pool: str, secret: str) -> None:
    variable = unique("image_tag").replace("-", "_")
    api.post("/variables/", name=variable, value="x")
    block = api.post("/block_documents/filter", block_documents={"name": {"any_": [secret]}})[0]["id"]
    steps = (
        {"a": {"token": f"{{{{ prefect.blocks.secret.{secret} }}}}", "x": f"{{{{ prefect.variables.{variable} }}}}"}},
        {"b": {"$ref": {"block_document_id": block}}},
    )
    assert await said(api, work_pool=pool, pull_steps=steps) == []

    wrong = (
        {"a": {"token": f"{{{{ prefect.blocks.json.{secret} }}}}", "x": "{{ prefect.variables.no_such }}"}},
        {"b": {"$ref": {"block_document_id": "00000000-0000-0000-0000-000000000000"}}},
        {"b": {"$ref": {"block_document_id": "no id"}}},
    )
    found = await said(api, work_pool=pool, pull_steps=wrong)
    assert [finding.severity for finding in found] == ["error"] * 4
    assert "no_such" in found[0].message and f"{secret!r} of type 'json'" in found[1].message


# --- pools of this plan, workers, versions ---------------------------------------------------------------


async def test_a_pool_that_this_plan_creates_counts_with_the_template_of_its_type(api: Api) -> None:
    name = unique("planned")
    wanted = Resources(pools=(PoolSpec(name=name, type="docker"),), queues=(QueueSpec(pool=name, name="tables"),))

    assert await said(api, wanted, work_pool=name, job_variables={"image": "a:1"}) == []
    assert await said(api, wanted, work_pool=name, work_queue="tables") == []
    unknown, _ = await said(api, wanted, work_pool=name, job_variables={"imgae": "a:1"}, work_queue="other")
    assert "Did you mean 'image'?" in unknown.remedy


async def test_a_pool_of_another_type_than_the_environment_says(api: Api, pool: str) -> None:
    wanted = Resources(pools=(PoolSpec(name=pool, type="docker"),))
    (finding,) = await said(api, wanted, work_pool=pool)
    assert finding.severity == "error" and "'process', and the environment says 'docker'" in finding.message


async def test_a_worker_that_is_online_is_seen(api: Api, worker: Worker, pool: str) -> None:
    facts = await facts_for(api.url, deployment(work_pool=worker.pool))
    assert worker.pool in facts.served_pools
    assert pool not in facts.served_pools


async def test_the_versions_are_known(api: Api) -> None:
    facts = await facts_for(api.url, deployment())
    assert facts.server_version == facts.client_version != ""


# --- requests --------------------------------------------------------------------------------------------


async def test_the_number_of_requests_does_not_grow_with_the_changes(api: Api, pool: str, secret: str) -> None:
    def config(number: int) -> DeploymentConfig:
        texts = f"{{{{ prefect.blocks.secret.{secret} }}}} {{{{ prefect.variables.v{number} }}}}"
        ref = {"$ref": {"block_document_id": "00000000-0000-0000-0000-000000000000"}}
        return deployment(f"many/{number}", work_pool=pool, pull_steps=({"a": {"x": texts, "y": ref}},))

    counts = []
    for configs in ([], [config(0)], [config(number) for number in range(150)]):
        async with proxy_to(api.url) as proxy:
            await facts_for(proxy.api_url, *configs)
            counts.append(len([request for request in proxy.seen if request.path.endswith("/filter")]))
    assert counts == [0, 5, 5]


def test_schema_tools_are_not_imported_where_nothing_is_checked() -> None:
    code = "import sys, orchestrator.facts; print('sqlalchemy' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert answer.stdout.strip() == "False"
