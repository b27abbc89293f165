"""What the tests of plan and apply stand on: a project of their own for each, and deployments for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator import live
from orchestrator.config import Policy, ScheduleSection
from orchestrator.model import DeploymentConfig, DeploymentResult, Desired, Owner, Plan, ScheduleConfig
from orchestrator.terms import Terms

POOL, OTHER_POOL, DOCKER_POOL = "gitops-processes", "gitops-others", "gitops-docker"
PULL = ({"prefect.deployments.steps.set_working_directory": {"directory": "/srv/flows"}},)
SCHEMA = {
    "type": "object",
    "title": "Parameters",
    "properties": {
        "tables": {"type": "integer", "default": 20, "position": 0, "title": "tables"},
        "options": {"$ref": "#/definitions/Options", "position": 1},
        "since": {"type": "string", "position": 2},
        "nothing": {"position": 3},
        "a": {"position": 4},
    },
    "required": ["options"],
    "definitions": {"Options": {"type": "object", "properties": {"fast": {"type": "boolean"}}}},
}
TEMPLATE = {
    "job_configuration": {"env": "{{ env }}", "command": "{{ command }}", "limits": "{{ limits }}"},
    "variables": {
        "type": "object",
        "properties": {
            "env": {"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            "command": {"type": "string"},
            "limits": {"type": "object"},
        },
    },
}


@dataclass(frozen=True)
class Repository:
    """What one test's repository asks for: a project of its own with one flow, so that no test sees another's."""

    owner: Owner
    flow: str
    api_url: str

    def wants(self, name: str = "daily", **fields: Any) -> DeploymentConfig:
        values: dict[str, Any] = {
            "entrypoint": "flows/etl.py:etl",
            "work_pool": POOL,
            "work_queue": "default",
            "pull_steps": PULL,
            "version": "0123456789ab",
            "source": "prefect.yaml:3",
        }
        tags = (*fields.pop("tags", ()), self.owner.tag)
        return DeploymentConfig(flow_name=self.flow, deployment_name=name, tags=tags, **{**values, **fields})

    def path(self, name: str = "daily") -> str:
        return f"{self.flow}/{name}"

    async def plan(self, *configs: DeploymentConfig, adopt: Sequence[str] = (), policy: Policy | None = None) -> Plan:
        desired = Desired(owner=self.owner, deployments=configs)
        return await live.plan_changes(
            desired, policy or Policy(), api_url=self.api_url, adopt=adopt, recorded_as="a test"
        )

    async def apply(self, *configs: DeploymentConfig, adopt: Sequence[str] = ()) -> DeploymentResult:
        terms = Terms(adopt=tuple(adopt), verifies=False)  # the server's scheduler takes its time: see test_verify
        return await live.apply_changes(await self.plan(*configs, adopt=adopt), api_url=self.api_url, terms=terms)

    async def deployed(self, *configs: DeploymentConfig) -> None:
        result = await self.apply(*configs)
        assert not result.failed, result.failed

    def through(self, api_url: str) -> Repository:
        return replace(self, api_url=api_url)


def every(**rule: Any) -> ScheduleConfig:
    """A schedule as people write it in an environment's file or a prefect.yaml."""
    return ScheduleSection(**rule).to_schedule()


def statuses(result: DeploymentResult) -> dict[str, str]:
    return {item.deployment.partition("/")[2]: item.status for item in result.results}


def actions(plan: Plan) -> dict[str, str]:
    return {change.deployment.partition("/")[2]: change.action for change in plan.changes}


def full(repository: Repository) -> DeploymentConfig:
    """A deployment that says something about everything."""
    return repository.wants(
        path="/srv/code",
        work_queue="tables",
        parameters={"tables": 3, "options": {"fast": True}, "since": "2026-01-01", "nothing": None},
        job_variables={"env": {"A": "1", "B": "two"}, "command": "python -m prefect.engine", "limits": {"cpu": [1, 2]}},
        pull_steps=(*PULL, {"prefect.deployments.steps.run_shell_script": {"script": "make", "env": {"X": "y"}}}),
        schedules=(every(cron="0 4 * * *", slug="nightly", timezone="Europe/Vienna", parameters={"tables": 1}),),
        paused=True,
        tags=("zebra", "etl", "alpha"),
        description="All of it.\n\nWith **markdown**.",
        version="2026.1",
        concurrency_limit=3,
        concurrency_options={"collision_strategy": "CANCEL_NEW", "grace_period_seconds": 120},
        enforce_parameter_schema=False,
        parameter_schema=SCHEMA,
    )


TWO = (every(cron="0 1 * * *", slug="early"), every(cron="0 2 * * *", slug="late"))
