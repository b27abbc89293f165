"""DeploymentBuilder as far as it needs no server: the deployment of one flow, and what it refuses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import DeploymentBuilder, FlowDiscovery, FlowMetadata
from orchestrator.builder import DeploymentType
from orchestrator.errors import ConfigurationError, OrchestratorError
from tests.unit.builders import write_files

ENVIRONMENT = """
    work_pools:
      python: {name: processes, type: process}
      docker: {name: containers, type: docker}
    default_parameters: {rows: 7, unknown: 1}
    resource_limits: {memory: 512Mi}
    templates:
      python: {name: "{environment.name}-{flow.name}", tags: [templated]}
    deployments:
      "*/*-docker": {job_variables: {network_mode: host}}
"""
FLOW = """
    from prefect import flow
    @flow
    def load_orders(rows: int = 5) -> int:
        '''Loads the orders.'''
        return rows
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    files = {
        "flows/orders.py": FLOW,
        "flows/Dockerfile": "FROM python:3.11-slim\n",
        "environments/staging.yaml": ENVIRONMENT,
        "prefect.yaml": "deployments:\n  - {name: declared, entrypoint: 'flows/orders.py:load_orders'}\n",
        "pyproject.toml": '[tool.orchestrator]\nproject = "shop"\n',
    }
    return write_files(tmp_path, files)


@pytest.fixture
def flow(shop: Path) -> FlowMetadata:
    (found,) = FlowDiscovery(shop).discover().flows
    return found


class TestOfPythonDeployment:
    def test_is_what_the_environments_template_says(self, shop: Path, flow: FlowMetadata) -> None:
        made = DeploymentBuilder(shop).create_python_deployment(flow, "staging")

        assert made.deployment_path == "load-orders/staging-load-orders"
        assert (made.deployment_type, made.environment, made.work_pool) == ("python", "staging", "processes")
        assert made.entrypoint == "flows/orders.py:load_orders"
        assert made.parameters == {"rows": 7}
        assert made.tags == ("templated", "orchestrator:shop:staging")
        assert made.description == "Loads the orders."
        assert made.version == flow.closure_digest[:12]

    def test_has_the_parameter_schema_that_prefect_would_store(self, shop: Path, flow: FlowMetadata) -> None:
        made = DeploymentBuilder(shop).create_python_deployment(flow, "staging")

        assert made.parameter_schema["properties"]["rows"] == {
            "default": 5,
            "position": 0,
            "title": "rows",
            "type": "integer",
        }

    def test_needs_a_sound_flow(self, shop: Path, flow: FlowMetadata) -> None:
        faulty = replace(flow, validation_errors=("flows/orders.py:3: no such module",))

        with pytest.raises(ConfigurationError, match="no such module"):
            DeploymentBuilder(shop).create_python_deployment(faulty, "staging")

    def test_needs_an_environment(self, shop: Path, flow: FlowMetadata) -> None:
        with pytest.raises(ConfigurationError, match="no environment 'stagign'"):
            DeploymentBuilder(shop).create_python_deployment(flow, "stagign")

    def test_needs_a_pool_of_its_kind(self, shop: Path, flow: FlowMetadata) -> None:
        write_files(shop, {"environments/staging.yaml": "work_pools:\n  docker: {name: containers, type: docker}\n"})

        with pytest.raises(ConfigurationError, match="no work pool of kind python") as caught:
            DeploymentBuilder(shop).create_python_deployment(flow, "staging")
        assert caught.value.location == "environments/staging.yaml:1"
        assert "work_pools: {python:" in caught.value.remedy

    def test_takes_the_templates_own_pool(self, shop: Path, flow: FlowMetadata) -> None:
        write_files(shop, {"environments/staging.yaml": "templates:\n  python: {work_pool: theirs}\n"})

        assert DeploymentBuilder(shop).create_python_deployment(flow, "staging").work_pool == "theirs"


class TestOfDockerDeployment:
    def test_without_a_template_has_the_defaults_of_one(self, shop: Path, flow: FlowMetadata) -> None:
        made = DeploymentBuilder(shop).create_docker_deployment(flow, "staging")

        assert made.deployment_path == "load-orders/staging-docker"
        assert (made.deployment_type, made.work_pool) == ("docker", "containers")

    def test_has_the_environments_limits_and_overrides(self, shop: Path, flow: FlowMetadata) -> None:
        made = DeploymentBuilder(shop).create_docker_deployment(flow, "staging")

        assert made.job_variables == {
            "mem_limit": "512m",
            "network_mode": "host",
            "image": "{{ image }}",  # it is named when it is deployed
            "env": {"PREFECT_HOME": "/tmp/prefect"},
        }

    def test_needs_a_dockerfile(self, shop: Path, flow: FlowMetadata) -> None:
        with pytest.raises(ConfigurationError, match="No Dockerfile belongs to the flow 'load-orders'"):
            DeploymentBuilder(shop).create_docker_deployment(replace(flow, dockerfile_path=None), "staging")


def test_an_unknown_deployment_type_is_told(shop: Path) -> None:
    wrong: DeploymentType = "dcoker"  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="Did you mean 'docker'"):
        DeploymentBuilder(shop).deploy_all(wrong, "staging")


@pytest.mark.parametrize("call", ["deploy_all", "cleanup_deployments"])
def test_asynchronous_code_is_told_how_to_call_it(shop: Path, call: str) -> None:
    builder = DeploymentBuilder(shop, api_url="http://127.0.0.1:9/api")

    async def call_it() -> None:
        getattr(builder, call)(environment="staging")

    with pytest.raises(OrchestratorError, match=rf"await asyncio.to_thread\(DeploymentBuilder.{call}"):
        asyncio.run(call_it())
