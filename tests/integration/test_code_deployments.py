"""Deployments from scripts, on a real server: deploy_all_flows as the design document has it, and DeploymentBuilder."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import DeploymentBuilder, FlowDiscovery
from orchestrator.errors import RefusedError
from orchestrator.model import DeploymentResult
from tests.unit.builders import write_files

from .api import Api, unique
from .conftest import PrefectServer

POOL = "code-processes"
SCRIPT = """
    import sys
    from prefect import flow
    from orchestrator import DEPLOYMENT_CONFIGS, FlowDeployment, deploy_all_flows

    @flow(name="{prefix}-main")
    def main_etl(table: int = 1) -> None:
        '''The whole ETL.'''

    @flow(name="{prefix}-sub")
    def sub_etl() -> None: ...

    class Team:
        @flow(name="{prefix}-report")
        @staticmethod
        def report() -> None: ...

    weekly = main_etl.with_options(name="{prefix}-weekly")

    # All deployments defined in one place
    DEPLOYMENT_CONFIGS.extend([
        FlowDeployment(
            flow_func=main_etl,
            deployment_name="main-etl-deployment",
            description="Main ETL orchestrator that calls sub_etl",
            parameters={{"table": 2}},
            schedules=[{{"cron": "0 4 * * *", "slug": "nightly", "active": False}}],
        ),
        FlowDeployment(flow_func=Team.report, deployment_name="report-deployment"),
        FlowDeployment(flow_func=weekly, deployment_name="weekly-deployment"),
    ])
    DEPLOYMENT_CONFIGS.append(
        FlowDeployment(flow_func=sub_etl, deployment_name="sub-etl-deployment", description="The part")
    )

    if __name__ == "__main__":
        for name in sys.argv[1:]:
            DEPLOYMENT_CONFIGS[:] = [each for each in DEPLOYMENT_CONFIGS if each.deployment_name != name]
        result = deploy_all_flows(work_pool="{pool}")
        print(result.status, *sorted(f"{{each.action}}:{{each.deployment}}" for each in result.results))
"""
LOADS = """
import sys
from prefect.flows import load_flow_from_entrypoint
print(load_flow_from_entrypoint(sys.argv[1], use_placeholder_flow=False).name)
"""


@dataclass(frozen=True)
class Shop:
    """A repository with a script that deploys its own flows."""

    root: Path
    prefix: str
    server: PrefectServer

    def deploy(self, *without: str) -> list[str]:
        """What the script says: status, then action:path of each deployment."""
        return self._python("deploy.py", *without).split()

    def loaded(self, entrypoint: str) -> str:
        """The name of the flow that a run would load."""
        return self._python("-c", LOADS, entrypoint).strip()

    def _python(self, *arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=self.server.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def api(api: Api) -> Api:
    api.ensure_pool(POOL)
    return api


@pytest.fixture
def shop(tmp_path: Path, api: Api, prefect_server: PrefectServer) -> Iterator[Shop]:
    prefix = unique("code")
    files = {
        "deploy.py": SCRIPT.format(prefix=prefix, pool=POOL),
        "pyproject.toml": f'[tool.orchestrator]\nproject = "{prefix}"\n',
    }
    yield Shop(write_files(tmp_path, files), prefix, prefect_server)
    for name in ("main", "sub", "report", "weekly"):
        api.delete_deployments_of(f"{prefix}-{name}")


def rows_of(api: Api, shop: Shop) -> dict[str, dict[str, Any]]:
    """Name → deployment."""
    return api.deployments(flows={"name": {"like_": f"{shop.prefix}-"}})


def test_a_script_deploys_its_flows(api: Api, shop: Shop) -> None:
    status, *changes = shop.deploy()

    assert status == "completed"
    assert {change.partition(":")[0] for change in changes} == {"create"}
    rows = rows_of(api, shop)
    main = rows["main-etl-deployment"]
    assert sorted(rows) == ["main-etl-deployment", "report-deployment", "sub-etl-deployment", "weekly-deployment"]
    assert main["description"] == "Main ETL orchestrator that calls sub_etl"
    assert (main["parameters"], main["work_pool_name"]) == ({"table": 2}, POOL)
    assert [(each["slug"], each["active"]) for each in main["schedules"]] == [("nightly", False)]
    assert main["parameter_openapi_schema"]["properties"]["table"]["default"] == 1
    assert main["tags"] == [f"orchestrator:{shop.prefix}/code:development"]
    assert api.deployment(f"{shop.prefix}-main/main-etl-deployment")["id"] == main["id"]


def test_a_run_finds_each_flow_by_its_entrypoint(api: Api, shop: Shop) -> None:
    shop.deploy()

    (step,) = rows_of(api, shop)["report-deployment"]["pull_steps"]
    assert step["prefect.deployments.steps.set_working_directory"] == {"directory": str(shop.root)}
    entrypoints = {name: row["entrypoint"] for name, row in rows_of(api, shop).items()}
    assert entrypoints == {
        "main-etl-deployment": "deploy.py:main_etl",
        "sub-etl-deployment": "deploy.py:sub_etl",
        "report-deployment": "deploy.py:Team.report",
        "weekly-deployment": "deploy.py:weekly",
    }
    assert shop.loaded("deploy.py:main_etl") == f"{shop.prefix}-main"
    assert shop.loaded("deploy.py:Team.report") == f"{shop.prefix}-report"
    assert shop.loaded("deploy.py:weekly") == f"{shop.prefix}-weekly"


def test_the_second_time_nothing_is_written(api: Api, shop: Shop) -> None:
    shop.deploy()
    before = rows_of(api, shop)

    status, *changes = shop.deploy()
    assert status == "no-changes"
    assert {change.partition(":")[0] for change in changes} == {"unchanged"}
    assert rows_of(api, shop) == before


def test_what_leaves_the_list_is_deleted_and_nothing_else(api: Api, shop: Shop) -> None:
    shop.deploy()
    tag = f"orchestrator:{shop.prefix}:development"  # what a sync of the same repository declares
    api.deploy(f"{shop.prefix}-sub/declared", tags=[tag])
    api.deploy(f"{shop.prefix}-sub/somebodys")

    _, *changes = shop.deploy("sub-etl-deployment")
    assert f"delete:{shop.prefix}-sub/sub-etl-deployment" in changes
    assert sorted(rows_of(api, shop)) == [
        "declared",
        "main-etl-deployment",
        "report-deployment",
        "somebodys",
        "weekly-deployment",
    ]


# --- DeploymentBuilder -----------------------------------------------------------------------------------

ENVIRONMENT = """
    work_pools:
      python: {{name: {pool}, type: process}}
      docker: {{name: {pool}, type: process}}
    templates:
      python: {{}}
      docker: {{}}
    policy: {{delete_limit: 0, delete_share: 0}}
"""
FLOWS = """
    from prefect import flow
    @flow(name="{prefix}-main")
    def main_etl(table: int = 1): ...
    @flow(name="{prefix}-sub")
    def sub_etl(): ...
"""


@pytest.fixture
def repository(tmp_path: Path, api: Api, prefect_server: PrefectServer) -> Iterator[Shop]:
    prefix = unique("built")
    files = {
        "flows/etl.py": FLOWS.format(prefix=prefix),
        "flows/Dockerfile": "FROM python:3.11-slim\n",
        "environments/development.yaml": ENVIRONMENT.format(pool=POOL),
        "pyproject.toml": f'[tool.orchestrator]\nproject = "{prefix}"\n',
    }
    yield Shop(write_files(tmp_path, files), prefix, prefect_server)
    for name in (f"{prefix}-main", f"{prefix}-sub", "deploy-everything"):
        for row in api.deployments_of(name).values():
            if f"orchestrator:{prefix}:development" in row["tags"]:
                api.call("DELETE", f"/deployments/{row['id']}")


def done(result: DeploymentResult) -> list[str]:
    """What was applied, without the deployer's own deployment."""
    assert not result.failed, json.dumps([str(item) for item in result.failed])
    applied = [item.deployment for item in result.results if item.status == "applied"]
    return sorted(path.partition("-")[2].partition("-")[2] for path in applied if "deploy-everything" not in path)


def test_builder_deploys_one_kind_or_all(api: Api, repository: Shop) -> None:
    builder = DeploymentBuilder(repository.root, api_url=api.url)

    assert done(builder.deploy_all("python")) == ["main/development-python", "sub/development-python"]
    assert done(builder.deploy_all("docker")) == ["main/development-docker", "sub/development-docker"]
    assert done(builder.deploy_all("all")) == []


def test_what_builder_creates_for_one_flow_is_what_it_deploys(api: Api, repository: Shop) -> None:
    builder = DeploymentBuilder(repository.root, api_url=api.url)
    builder.deploy_all("python")

    flow = next(each for each in FlowDiscovery(repository.root).discover().flows if each.function_name == "main_etl")
    made = builder.create_python_deployment(flow)
    row = api.deployment(made.deployment_path)
    assert (row["entrypoint"], row["version"], row["tags"]) == (made.entrypoint, made.version, list(made.tags))
    assert row["parameter_openapi_schema"] == made.parameter_schema


def test_builder_refuses_to_delete_much(api: Api, repository: Shop) -> None:
    builder = DeploymentBuilder(repository.root, api_url=api.url)
    builder.deploy_all()
    (repository.root / "flows" / "Dockerfile").unlink()

    with pytest.raises(RefusedError, match="would delete 2 of the 4"):
        builder.deploy_all()
    assert done(builder.deploy_all(allow_delete=True)) == ["main/development-docker", "sub/development-docker"]


def test_builder_cleans_up_what_is_ours(api: Api, repository: Shop) -> None:
    builder = DeploymentBuilder(repository.root, api_url=api.url)
    builder.deploy_all("python")
    api.deploy(f"{repository.prefix}-sub/somebodys")

    some = builder.cleanup_deployments(f"{repository.prefix}-sub/*")
    assert some.deleted == (f"{repository.prefix}-sub/development-python",)
    assert some.foreign == (f"{repository.prefix}-sub/somebodys",)
    rest = builder.cleanup_deployments()
    assert f"{repository.prefix}-main/development-python" in rest.deleted
    assert list(api.deployments_of(f"{repository.prefix}-sub")) == ["somebodys"]
    assert not api.deployments_of(f"{repository.prefix}-main")


async def test_builder_works_in_a_thread_of_asynchronous_code(api: Api, repository: Shop) -> None:
    builder = DeploymentBuilder(repository.root, api_url=api.url)

    result = await asyncio.to_thread(builder.deploy_all, "docker")
    assert done(result) == ["main/development-docker", "sub/development-docker"]
