"""Apply: each change by the gentlest call, and a result for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.apply import apply_plan
from orchestrator.config import Policy
from orchestrator.errors import ServerError, ServerUnreachable
from orchestrator.model import DeploymentConfig, DeploymentResult, Desired, LiveDeployment, Plan, ScheduleConfig
from orchestrator.plan import make_plan
from tests.unit.builders import API_URL, OWNER, cron, deployment, live, problem


@dataclass
class Notebook:
    """A DeploymentWriter that writes down what it is told; `fails` names the calls that raise, by subject."""

    fails: Mapping[str, Exception] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def _write(self, call: str, subject: str, *details: Any) -> None:
        self.calls.append((call, subject, *details))
        if subject in self.fails:
            raise self.fails[subject]

    async def create_deployment(self, config: DeploymentConfig, labels: Mapping[str, str]) -> str:
        self._write("create", config.deployment_path, dict(labels))
        return f"id-of-{config.deployment_path}"

    async def update_deployment(self, id_: str, config: DeploymentConfig, fields: tuple[str, ...]) -> None:
        self._write("update", id_, fields)

    async def pause_deployment(self, id_: str) -> None:
        self._write("pause", id_)

    async def delete_deployment(self, id_: str) -> None:
        self._write("delete", id_)

    async def create_schedule(self, deployment_id: str, schedule: ScheduleConfig) -> None:
        self._write("create schedule", deployment_id, schedule.label)

    async def update_schedule(self, deployment_id: str, schedule_id: str, schedule: ScheduleConfig) -> None:
        self._write("update schedule", deployment_id, schedule_id, schedule.label)

    async def delete_schedule(self, deployment_id: str, schedule_id: str) -> None:
        self._write("delete schedule", deployment_id, schedule_id)


def plan_of(wanted: Sequence[DeploymentConfig], there: Sequence[LiveDeployment] = (), **more: Any) -> Plan:
    return make_plan(Desired(owner=OWNER, deployments=tuple(wanted)), there, api_url=API_URL, policy=Policy(), **more)


async def calls_for(
    wanted: DeploymentConfig, there: LiveDeployment | None = None, **more: Any
) -> list[tuple[Any, ...]]:
    notebook = Notebook()
    await apply_plan(plan_of([wanted], [there] if there else [], **more), notebook)
    return notebook.calls


def outcomes(result: DeploymentResult) -> list[tuple[str, str]]:
    return [(item.deployment, item.status) for item in result.results]


class TestCalls:
    async def test_a_create_says_where_it_comes_from(self) -> None:
        labels = {
            "orchestrator.project": "shop",
            "orchestrator.environment": "development",
            "orchestrator.source": "prefect.yaml:3",
        }
        assert await calls_for(deployment(source="prefect.yaml:3")) == [("create", "etl/daily", labels)]

    async def test_an_update_names_only_the_fields_that_differ(self) -> None:
        wanted = deployment(description="new", job_variables={"env": {"A": "2", "B": "1"}})
        there = live(wanted, description="old", job_variables={"env": {"A": "1"}})
        assert await calls_for(wanted, there) == [("update", "id-of-etl/daily", ("job_variables", "description"))]

    async def test_what_is_unchanged_is_not_written(self) -> None:
        assert await calls_for(deployment(), live(deployment())) == []

    async def test_a_delete(self) -> None:
        notebook = Notebook()
        await apply_plan(plan_of([], [live(deployment("old/x"))]), notebook)
        assert notebook.calls == [("delete", "id-of-old/x")]

    async def test_an_adoption_is_an_update(self) -> None:
        there = live(deployment(), owner=None, tags=())
        assert await calls_for(deployment(), there, adopt=["*"]) == [("update", "id-of-etl/daily", ("tags",))]

    async def test_a_conflict_is_left_alone(self) -> None:
        assert await calls_for(deployment(description="x"), live(deployment(), owner=None)) == []

    async def test_a_pause_alone_updates_nothing_else(self) -> None:
        assert await calls_for(deployment(paused=True), live(deployment())) == [("pause", "id-of-etl/daily")]

    async def test_what_a_person_paused_is_never_resumed(self) -> None:
        assert await calls_for(deployment(), live(deployment(), paused=True)) == []


class TestSchedules:
    async def test_are_written_one_by_one_and_the_right_ones_not_at_all(self) -> None:
        stays = cron("0 1 * * *", slug="stays")
        there = (stays, cron("0 2 * * *", slug="moves"), cron("0 3 * * *", slug="goes"))
        wanted = (cron("0 9 * * *", slug="moves"), cron("0 4 * * *", slug="comes"), stays)
        assert await calls_for(deployment(schedules=wanted), live(deployment(schedules=there))) == [
            ("update schedule", "id-of-etl/daily", "schedule-1", "moves"),
            ("create schedule", "id-of-etl/daily", "comes"),
            ("delete schedule", "id-of-etl/daily", "schedule-2"),
        ]

    async def test_are_not_touched_where_something_else_differs(self) -> None:
        wanted = deployment(schedules=(cron(slug="n"),), description="new")
        assert await calls_for(wanted, live(wanted, description="old")) == [
            ("update", "id-of-etl/daily", ("description",))
        ]

    async def test_that_are_switched_off_are_not_switched_on(self) -> None:
        wanted = deployment(schedules=(cron(slug="n"),))
        assert await calls_for(wanted, live(wanted, schedules=(cron(slug="n", active=False),))) == []


class TestOrder:
    async def test_is_the_plans_with_the_deployer_last(self) -> None:
        wanted = [deployment("deploy-everything/development"), deployment("b/new"), deployment("a/new")]
        notebook = Notebook()
        await apply_plan(plan_of(wanted, [live(deployment("a/old"))]), notebook)
        assert [call[:2] for call in notebook.calls] == [
            ("create", "a/new"),
            ("create", "b/new"),
            ("delete", "id-of-a/old"),
            ("create", "deploy-everything/development"),
        ]


class TestFailures:
    async def test_one_does_not_stop_the_others(self) -> None:
        notebook = Notebook(fails={"b/x": ServerError("The server answered 422.", remedy="Look.")})
        result = await apply_plan(plan_of([deployment(f"{name}/x") for name in "abc"]), notebook)
        assert outcomes(result) == [("a/x", "applied"), ("b/x", "failed"), ("c/x", "applied")]
        assert result.results[1].error == "The server answered 422. Look."
        assert result.status == "degraded"

    async def test_a_server_that_is_gone_is_not_asked_again(self) -> None:
        notebook = Notebook(fails={"b/x": ServerUnreachable("It does not answer.")})
        result = await apply_plan(plan_of([deployment(f"{name}/x") for name in "abcd"]), notebook)
        assert outcomes(result) == [("a/x", "applied"), ("b/x", "failed"), ("c/x", "skipped"), ("d/x", "skipped")]
        assert [call[1] for call in notebook.calls] == ["a/x", "b/x"]
        assert result.results[2].error == "not tried: the server did not answer any more"

    async def test_a_half_written_update_is_failed(self) -> None:
        there, wanted = (cron(rule, slug="n") for rule in ("1 * * * *", "2 * * * *"))
        notebook = Notebook(fails={"id-of-etl/daily": ServerError("No.")})
        result = await apply_plan(
            plan_of([deployment(schedules=(wanted,))], [live(deployment(schedules=(there,)))]), notebook
        )
        assert outcomes(result) == [("etl/daily", "failed")]

    async def test_what_cannot_be_sent_fails_its_own_change_only(self) -> None:
        notebook = Notebook(fails={"b/x": TypeError("Object of type date is not JSON serializable")})
        result = await apply_plan(plan_of([deployment(f"{name}/x") for name in "abc"]), notebook)
        assert outcomes(result) == [("a/x", "applied"), ("b/x", "failed"), ("c/x", "applied")]
        assert result.results[1].error == "TypeError: Object of type date is not JSON serializable"

    async def test_an_error_that_is_not_ours_is_not_hidden(self) -> None:
        with pytest.raises(AttributeError):
            await apply_plan(plan_of([deployment()]), object())  # type: ignore[arg-type]


class TestResult:
    async def test_a_conflict_degrades_and_says_why(self) -> None:
        plan = plan_of([deployment(), deployment("b/new")], [live(deployment(), owner=None)])
        result = await apply_plan(plan, Notebook())
        assert outcomes(result) == [("b/new", "applied"), ("etl/daily", "skipped")]
        assert "belongs to nobody" in (result.results[1].error or "")
        assert (result.status, result.summary["conflict"], result.summary["create"]) == ("degraded", 1, 1)

    async def test_nothing_to_do(self) -> None:
        result = await apply_plan(plan_of([deployment()], [live(deployment())]), Notebook())
        assert (result.status, outcomes(result)) == ("no-changes", [("etl/daily", "unchanged")])

    async def test_all_done(self) -> None:
        result = await apply_plan(plan_of([deployment()]), Notebook())
        assert (result.status, result.api_url, result.environment) == ("completed", API_URL, "development")

    async def test_the_repositorys_faults_degrade(self) -> None:
        desired = Desired(owner=OWNER, deployments=(deployment(),), problems=(problem(skips=True),))
        result = await apply_plan(make_plan(desired, (), api_url=API_URL, policy=Policy()), Notebook())
        assert (result.status, result.problems) == ("degraded", desired.problems)

    async def test_a_failed_change_is_not_counted(self) -> None:
        result = await apply_plan(plan_of([deployment()]), Notebook(fails={"etl/daily": ServerError("No.")}))
        assert result.summary["create"] == 0
