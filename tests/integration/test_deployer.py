"""The deployer flow, run in this process on a tiny repository, against a real server: states, artifacts, safety."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import State
from prefect.events.worker import EventsWorker

from orchestrator.deployer import deploy_everything
from tests.unit.builders import write_files

from .api import Api, unique
from .conftest import PrefectServer, free_port

POOL = "deployer-processes"
FLOW = """
    from prefect import flow

    @flow(name="{name}")
    def {function}(day: str = "today", password: str = "") -> None:
        '''Does its work.'''
"""


@dataclass
class Repository:
    """A repository with a few flows and one environment, whose name no other test has."""

    root: Path
    environment: str
    api: Api

    def flow_name(self, function: str) -> str:
        return f"{self.environment}-{function}"

    def path(self, function: str) -> str:
        return f"{self.flow_name(function)}/{self.environment}-python"

    @property
    def own(self) -> str:
        return f"deploy-everything/{self.environment}"

    def write(self, name: str, text: str) -> None:
        write_files(self.root, {name: text})

    def add_flow(self, function: str) -> None:
        self.write(f"flows/{function}.py", FLOW.format(name=self.flow_name(function), function=function))

    def configure(self, **changes: Any) -> None:
        """The environment's file, with what differs from a plain one."""
        template = {"name": "{environment.name}-{kind}", **changes.pop("template", {})}
        plain = {
            "prefect_api_url": self.api.url,
            "work_pools": {"python": {"name": POOL, "type": "process"}},
            "templates": {"python": template},
        }
        self.write(f"environments/{self.environment}.yaml", yaml.safe_dump({**plain, **changes}))

    def deployed(self) -> set[str]:
        """The functions that are deployed; `*` for the deployer itself."""
        owner = f"orchestrator:shop:{self.environment}"
        rows = self.api.post("/deployments/filter", deployments={"tags": {"all_": [owner]}})
        names = {row["id"]: row["entrypoint"].rpartition(":")[2] for row in rows}
        return {"*" if "." in name else name for name in names.values()}

    async def sync(self, mode: str = "apply", **parameters: Any) -> Run:
        state = await deploy_everything(mode=mode, environment=self.environment, **parameters, return_state=True)
        return Run(api=self.api, state=state)


@dataclass
class Run:
    """An ended run of the deployer, and what the server has of it."""

    api: Api
    state: State

    @property
    def id(self) -> str:
        return str(self.state.state_details.flow_run_id)

    @property
    def outcome(self) -> tuple[str, str]:
        return self.state.type.value, str(self.state.name)

    @property
    def message(self) -> str:
        return str(self.state.message)

    @property
    def name(self) -> str:
        return str(self.api.get(f"/flow_runs/{self.id}")["name"])

    @property
    def artifacts(self) -> dict[str, str]:
        rows = self.api.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [self.id]}})
        return {row["key"]: row["data"] for row in rows}


@pytest.fixture(scope="module", autouse=True)
def events_sent(prefect_server: PrefectServer) -> Iterator[None]:
    """Prefect sends what its tasks tell in the background; once the server is gone, it would try for a minute."""
    yield
    EventsWorker.drain_all(timeout=30)


@pytest.fixture(scope="module")
def schema_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployer's parameter schema is the same in every repository: it is worked out once."""
    return tmp_path_factory.mktemp("schemas")


@pytest.fixture
def repository(
    prefect_server: PrefectServer, tmp_path: Path, schema_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Repository]:
    api = Api(prefect_server.api_url)
    api.ensure_pool(POOL)
    repository = Repository(root=tmp_path, environment=unique("dev"), api=api)
    repository.write("pyproject.toml", '[tool.orchestrator]\nproject = "shop"\n')
    repository.configure()
    for function in ("extract", "load"):
        repository.add_flow(function)
    copytree(schema_cache, tmp_path / ".orchestrator" / "cache", dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    yield repository
    copytree(tmp_path / ".orchestrator" / "cache", schema_cache, dirs_exist_ok=True)


# --- what it says ----------------------------------------------------------------------------------------


async def test_a_plan_writes_nothing_and_ends_with_changes_pending(repository: Repository) -> None:
    run = await repository.sync("plan")

    assert run.outcome == ("COMPLETED", "ChangesPending")
    assert run.message == "3 to create; nothing was written."
    assert repository.deployed() == set()


async def test_what_we_log_is_not_dropped_before_prefect_can_forward_it(repository: Repository) -> None:
    ours = logging.getLogger("orchestrator")
    ours.setLevel(logging.NOTSET)

    await repository.sync("plan")

    assert logging.getLogger("orchestrator.images.making").isEnabledFor(logging.INFO)


async def test_an_apply_deploys_everything_itself_included_and_the_next_has_nothing_to_do(
    repository: Repository,
) -> None:
    first = await repository.sync()
    deployed = repository.deployed()
    second = await repository.sync()

    assert (first.outcome, second.outcome) == (("COMPLETED", "Completed"), ("COMPLETED", "NoChanges"))
    assert deployed == repository.deployed() == {"extract", "load", "*"}
    assert first.name == f"{repository.environment}: +3 ~0 -0"
    assert second.name == f"{repository.environment}: +0 ~0 -0"


async def test_a_run_that_only_sets_a_limit_says_so(repository: Repository) -> None:
    await repository.sync()
    repository.configure(concurrency_limits={unique("database"): 3})
    plan, result = await repository.sync("plan"), await repository.sync()

    assert plan.outcome == ("COMPLETED", "ChangesPending")
    assert plan.message == "3 unchanged; pools and limits: 1 to create; nothing was written."
    assert plan.name == result.name == f"{repository.environment}: +0 ~0 -0, pools and limits +1 ~0"


async def test_the_plan_and_the_result_are_artifacts_of_the_run(repository: Repository) -> None:
    plan, result = f"plan-{repository.environment}", f"deployments-{repository.environment}"

    assert set((await repository.sync("plan")).artifacts) == {plan}
    artifacts = (await repository.sync()).artifacts
    assert set(artifacts) == {plan, result}
    assert repository.path("extract") in artifacts[plan] and repository.path("extract") in artifacts[result]


async def test_the_deployer_itself_comes_last(repository: Repository) -> None:
    repository.add_flow("zebra")
    result = (await repository.sync()).artifacts[f"deployments-{repository.environment}"]

    assert result.rindex(repository.own) > result.rindex(repository.path("zebra"))


async def test_only_narrows_what_is_done(repository: Repository) -> None:
    run = await repository.sync(only=(repository.path("load"),))
    again = await repository.sync(only=(f"{repository.flow_name('extract')}/*",))

    assert run.outcome == again.outcome == ("COMPLETED", "Completed")
    assert repository.deployed() == {"load", "extract"}


# --- what goes wrong -------------------------------------------------------------------------------------


async def test_a_syntax_error_degrades_names_its_place_and_the_others_are_deployed(repository: Repository) -> None:
    repository.write("flows/broken.py", "from prefect import flow\n\n\ndef broken(:\n")
    run = await repository.sync()

    assert run.outcome == ("FAILED", "Degraded")
    assert "flows/broken.py:4" in run.message
    assert repository.deployed() == {"extract", "load", "*"}


async def test_a_flow_that_breaks_keeps_its_deployment(repository: Repository) -> None:
    await repository.sync()
    (repository.root / "flows/load.py").write_text("def load(:\n")
    run = await repository.sync()

    assert run.outcome == ("FAILED", "Degraded")
    assert repository.deployed() == {"extract", "load", "*"}


async def test_what_the_server_refuses_degrades_and_is_named(repository: Repository) -> None:
    repository.configure(deployments={f"{repository.flow_name('load')}/*": {"work_pool": "no-such-pool"}})
    run = await repository.sync()

    assert run.outcome == ("FAILED", "Degraded")
    assert f"{repository.path('load')}:" in run.message and "no-such-pool" in run.message
    assert repository.deployed() == {"extract", "*"}


async def test_a_conflict_degrades_and_says_how_to_adopt(repository: Repository) -> None:
    repository.api.deploy(repository.path("load"), description="By hand.")

    for mode in ("plan", "apply"):
        assert (await repository.sync(mode)).outcome == ("FAILED", "Degraded")
    assert repository.api.deployment(repository.path("load"))["description"] == "By hand."
    assert "--adopt" in (await repository.sync()).message


async def test_an_invalid_environment_file_is_named_with_its_line_and_nothing_is_done(repository: Repository) -> None:
    repository.configure(depolyer={}, concurrency_limits={"database": "three"})
    run = await repository.sync()

    assert run.outcome == ("FAILED", "Invalid")
    for words in (f"environments/{repository.environment}.yaml:", "'depolyer'", "concurrency_limits.database"):
        assert words in run.message
    assert repository.deployed() == set()


async def test_a_plan_that_deletes_much_is_refused_and_nothing_is_deleted(repository: Repository) -> None:
    await repository.sync()
    for function in ("extract", "load"):
        (repository.root / f"flows/{function}.py").unlink()
    run = await repository.sync()

    assert run.outcome == ("FAILED", "Refused")
    assert "would delete 2 of the 2" in run.message and "--allow-delete" in run.message
    assert repository.deployed() == {"extract", "load", "*"}


async def test_the_environment_of_another_server_is_not_deployed_here(repository: Repository) -> None:
    elsewhere = f"http://prefect.example.com:{free_port()}/api"
    repository.configure(prefect_api_url=elsewhere)
    run = await repository.sync()

    assert run.outcome == ("FAILED", "Invalid")
    assert elsewhere in run.message and repository.api.url in run.message
    assert repository.deployed() == set()


# --- secrets ---------------------------------------------------------------------------------------------

SECRETS = ("s3cr3t-value", "hunter2-pass", "9876543210")
SECRET_ENV = {"API_TOKEN": "s3cr3t-value", "DATABASE_URL": "postgresql://shop:hunter2-pass@db/shop"}


async def everything_said(run: Run, caplog: pytest.LogCaptureFixture) -> str:
    """All that a run leaves where people look: states, artifacts, logs, and the states of its tasks."""
    tasks = run.api.post("/task_runs/filter", flow_runs={"id": {"any_": [run.id]}})
    states = [run.api.get(f"/flow_run_states/?flow_run_id={run.id}"), run.api.get(f"/flow_runs/{run.id}"), tasks]
    logs: list[Any] = []
    async with asyncio.timeout(60):
        while not any("Finished in state" in line["message"] for line in logs):
            await asyncio.sleep(0.1)  # logs are sent in batches
            logs = run.api.post("/logs/filter", logs={"flow_run_id": {"any_": [run.id]}})
    return json.dumps([states, run.artifacts, logs]) + run.message + caplog.text


async def test_no_secret_shows_in_artifacts_states_or_logs(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="orchestrator")
    runs = [await repository.sync()]
    for value in (SECRET_ENV, {**SECRET_ENV, "API_TOKEN": "other"}, {}):
        overrides = {"job_variables": {"env": value}, "parameters": {"password": "hunter2-pass"} if value else {}}
        repository.configure(deployments={f"{repository.flow_name('load')}/*": overrides})
        runs += [await repository.sync("plan"), await repository.sync()]

    said = "".join([await everything_said(run, caplog) for run in runs])
    assert [secret for secret in SECRETS if secret in said] == []
    assert "env.API_TOKEN" in said and "postgresql://shop:********@db/shop" in said


async def test_a_refusal_of_the_server_does_not_quote_a_secret(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    env = {"type": "object", "properties": {"API_TOKEN": {"type": "string"}}}
    template = {"job_configuration": {"env": "{{ env }}"}, "variables": {"properties": {"env": env}}}
    pool = repository.api.ensure_pool(unique("strict"), template=template)
    overrides = {"work_pool": pool, "job_variables": {"env": {"API_TOKEN": 9876543210}}}
    repository.configure(deployments={f"{repository.flow_name('load')}/*": overrides})
    run = await repository.sync()

    assert run.outcome == ("FAILED", "Degraded")
    assert "job_variables.env.API_TOKEN" in run.message
    assert "9876543210" not in await everything_said(run, caplog)
