"""Apply: each change by the gentlest call, and a result for each."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from orchestrator.apply import apply_plan, untouched
from orchestrator.config import Policy
from orchestrator.differences import StrayTrigger
from orchestrator.errors import LockedError, ServerBusy, ServerError, ServerUnreachable
from orchestrator.live import is_undone
from orchestrator.model import (
    DeploymentConfig,
    DeploymentResult,
    Desired,
    Finding,
    LimitSpec,
    LiveDeployment,
    LivePool,
    LiveResources,
    Owner,
    Plan,
    PoolSpec,
    Resources,
    ScheduleConfig,
)
from orchestrator.plan import make_plan, with_findings
from orchestrator.resources import Spec, plan_resources
from orchestrator.terms import Terms
from orchestrator.writers import Writers
from tests.unit.builders import API_URL, OWNER, cron, deployment, live, problem
from tests.unit.test_resources import RATE, TAG, Notes


@dataclass
class Notebook:
    """A DeploymentWriter that writes down what it is told, and does it to the deployments that it holds.

    `fails` names the calls that raise, by subject; `once` those that raise the first time only.
    """

    there: dict[str, LiveDeployment] = field(default_factory=dict)  # by id
    fails: Mapping[str, Exception] = field(default_factory=dict)
    once: dict[str, Exception] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    @classmethod
    def holding(cls, *deployments: LiveDeployment, **fields: Any) -> Notebook:
        return cls(there={item.id: item for item in deployments}, **fields)

    def _write(self, call: str, subject: str, *details: Any) -> None:
        self.calls.append((call, subject, *details))
        if subject in self.once:
            raise self.once.pop(subject)
        if subject in self.fails:
            raise self.fails[subject]

    def _set(self, id_: str, **fields: Any) -> None:
        if id_ in self.there:
            item = self.there[id_]
            self.there[id_] = replace(item, config=replace(item.config, **fields))

    def _schedules(self, id_: str) -> dict[str, ScheduleConfig]:
        item = self.there.get(id_)
        return dict(zip(item.schedule_ids, item.config.schedules, strict=True)) if item else {}

    def _set_schedules(self, id_: str, schedules: Mapping[str, ScheduleConfig]) -> None:
        if id_ in self.there:
            self._set(id_, schedules=tuple(schedules.values()))
            self.there[id_] = replace(self.there[id_], schedule_ids=tuple(schedules))

    def writing(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def find_deployment(self, flow: str, name: str) -> LiveDeployment | None:
        return next((item for item in self.there.values() if item.config.deployment_path == f"{flow}/{name}"), None)

    async def read_labels(self, id_: str) -> Mapping[str, str]:
        return {"of": id_}

    async def create_deployment(self, config: DeploymentConfig, labels: Mapping[str, str]) -> str:
        self._write("create", config.deployment_path, dict(labels))
        item = live(config, owner=Owner.from_tags(config.tags))
        self.there[item.id] = item
        return item.id

    async def update_deployment(self, id_: str, config: DeploymentConfig, fields: tuple[str, ...]) -> None:
        self._write("update", id_, fields)
        self._set(id_, **{name: getattr(config, name) for name in fields})

    async def pause_deployment(self, id_: str) -> None:
        self._write("pause", id_)
        self._set(id_, paused=True)

    async def resume_deployment(self, id_: str) -> None:
        self._write("resume", id_)
        self._set(id_, paused=False)

    async def delete_deployment(self, id_: str) -> None:
        self._write("delete", id_)
        self.there.pop(id_, None)

    async def create_schedule(self, deployment_id: str, schedule: ScheduleConfig, known: Collection[str] = ()) -> str:
        self._write("create schedule", deployment_id, schedule.label)
        id_ = f"new-{schedule.label}"
        self._set_schedules(deployment_id, {**self._schedules(deployment_id), id_: schedule})
        return id_

    async def update_schedule(
        self, deployment_id: str, schedule_id: str, schedule: ScheduleConfig, *, may_activate: bool = False
    ) -> None:
        self._write("update schedule", deployment_id, schedule_id, schedule.label)
        there = self._schedules(deployment_id)
        if schedule_id in there and not may_activate:
            schedule = replace(schedule, active=schedule.active and there[schedule_id].active)
        self._set_schedules(deployment_id, {**there, schedule_id: schedule})

    async def delete_schedule(self, deployment_id: str, schedule_id: str) -> None:
        self._write("delete schedule", deployment_id, schedule_id)
        schedules = self._schedules(deployment_id)
        schedules.pop(schedule_id, None)
        self._set_schedules(deployment_id, schedules)


class Clock:
    """Time that passes only when somebody waits."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def writers(**more: Any) -> Writers:
    clock = Clock()
    return Writers(clock=clock, sleep=clock.sleep, **more)


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

    async def test_what_runs_by_a_schedule_comes_first(self) -> None:
        off = (cron(active=False),)
        wanted = [
            deployment("a/plain"),
            deployment("b/off", schedules=off),
            deployment("c/on", schedules=(cron(),)),
            deployment("deploy-everything/development", schedules=(cron(),)),
        ]
        notebook = Notebook()
        await apply_plan(plan_of(wanted, [live(deployment("d/old"))]), notebook)
        assert [call[1].removeprefix("id-of-") for call in notebook.calls] == [
            *("c/on", "a/plain", "b/off"),
            "d/old",
            "deploy-everything/development",
        ]


class TestSuccessors:
    """A deployment is not deleted before what comes in its place is there."""

    WANTED = deployment("etl/new")
    THERE = (live(deployment("etl/old")), live(deployment("other/old")))

    async def deletes(self, plan: Plan, **fails: Exception) -> dict[str, str]:
        result = await apply_plan(plan, Notebook(fails={"etl/new": fails["error"]} if fails else {}), writers=writers())
        return {item.deployment: item.status for item in result.results if item.action == "delete"}

    async def test_one_that_cannot_be_made(self) -> None:
        plan = with_findings(plan_of([self.WANTED], self.THERE), {"etl/new": (Finding(message="no pool"),)})
        assert await self.deletes(plan) == {"etl/old": "skipped", "other/old": "applied"}

    async def test_one_that_fails(self) -> None:
        found = await self.deletes(plan_of([self.WANTED], self.THERE), error=ServerError("No."))
        assert found == {"etl/old": "skipped", "other/old": "applied"}

    async def test_one_that_comes(self) -> None:
        assert await self.deletes(plan_of([self.WANTED], self.THERE)) == {"etl/old": "applied", "other/old": "applied"}


class TestFailures:
    async def test_one_does_not_stop_the_others(self) -> None:
        notebook = Notebook(fails={"b/x": ServerError("The server answered 422.", remedy="Look.")})
        result = await apply_plan(plan_of([deployment(f"{name}/x") for name in "abc"]), notebook)
        assert outcomes(result) == [("a/x", "applied"), ("b/x", "failed"), ("c/x", "applied")]
        assert result.results[1].error == "The server answered 422. Look."
        assert result.status == "degraded"

    async def test_a_server_that_is_gone_is_not_asked_again(self) -> None:
        notebook = Notebook(fails={"b/x": ServerUnreachable("It does not answer.")})
        plan = plan_of([deployment(f"{name}/x") for name in "abcd"])
        result = await apply_plan(plan, notebook, writers=writers())
        assert outcomes(result) == [("a/x", "applied"), ("b/x", "failed"), ("c/x", "skipped"), ("d/x", "skipped")]
        assert {call[1] for call in notebook.calls} == {"a/x", "b/x"}
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

    @pytest.mark.parametrize("fault", [ServerBusy("The server answered 503."), ServerUnreachable("No answer.")])
    async def test_that_pass_are_tried_again(self, fault: Exception) -> None:
        notebook = Notebook(once={"b/x": fault})
        result = await apply_plan(plan_of([deployment(f"{name}/x") for name in "abc"]), notebook, writers=writers())
        assert result.status == "completed"
        assert [call[1] for call in notebook.calls] == ["a/x", "b/x", "b/x", "c/x"]

    async def test_a_server_that_is_busy_for_good_is_gone(self) -> None:
        notebook = Notebook(fails={"b/x": ServerBusy("The server answered 503.")})
        plan = plan_of([deployment(f"{name}/x") for name in "abc"])
        result = await apply_plan(plan, notebook, writers=writers())
        assert outcomes(result) == [("a/x", "applied"), ("b/x", "failed"), ("c/x", "skipped")]

    async def test_a_lost_lock_stops_what_is_not_written_yet(self) -> None:
        notebook = Notebook()

        async def still_ours() -> None:
            if len(notebook.calls) == 2:
                raise LockedError("The lock was taken from us.")

        plan = plan_of([deployment(f"{name}/x") for name in "abcd"])
        result = await apply_plan(plan, notebook, writers=writers(before=still_ours))
        assert outcomes(result) == [("a/x", "applied"), ("b/x", "applied"), ("c/x", "failed"), ("d/x", "skipped")]
        assert result.results[3].error == "not tried: The lock was taken from us."
        assert len(notebook.calls) == 2

    async def test_what_preflight_found_keeps_its_change_from_being_made(self) -> None:
        obstacle = Finding(message="There is no work pool 'x'.", remedy="Create it.")
        hint = Finding(message="No worker is online.", severity="warning")
        plan = with_findings(plan_of([deployment("a/x"), deployment("b/x")]), {"a/x": (obstacle,), "b/x": (hint,)})
        notebook = Notebook()
        result = await apply_plan(plan, notebook)
        assert outcomes(result) == [("a/x", "skipped"), ("b/x", "applied")]
        assert result.results[0].error == "There is no work pool 'x'. Create it."
        assert (result.status, [call[1] for call in notebook.calls]) == ("degraded", ["b/x"])


class TestTriggers:
    async def test_are_written_for_what_is_new_and_for_what_differs(self) -> None:
        given: list[tuple[str, Any]] = []

        async def write(id_: str, config: DeploymentConfig, taken_over: Collection[str]) -> None:
            assert not taken_over
            given.append((id_, config.triggers))

        fires = ({"type": "event"},)
        wanted = [deployment("a/new", triggers=fires), deployment("b/other"), deployment("c/changed", triggers=fires)]
        there = [live(deployment("c/changed")), live(deployment("d/same", triggers=fires))]
        notebook = Notebook.holding(*there)
        plan = plan_of([*wanted, deployment("d/same", triggers=fires)], there)
        await apply_plan(plan, notebook, write_triggers=write)
        assert given == [("id-of-a/new", fires), ("id-of-c/changed", fires)]
        assert [call[:2] for call in notebook.calls] == [("create", "a/new"), ("create", "b/other")]

    async def test_stay_off_where_somebody_switched_them_off(self) -> None:
        given: list[Any] = []

        async def write(_: str, config: DeploymentConfig, __: Collection[str]) -> None:
            given.append(config.triggers)

        off = {"name": "mine", "enabled": False, "expect": ["a"]}
        wanted = deployment(triggers=({"name": "mine", "enabled": True, "expect": ["b"]},))
        there = live(deployment(triggers=(off,)))
        await apply_plan(plan_of([wanted], [there]), Notebook.holding(there), write_triggers=write)
        assert given == [({"name": "mine", "enabled": False, "expect": ["b"]},)]

    @pytest.mark.parametrize("atomic", [False, True])
    async def test_of_an_adoption_are_written_before_it_is_ours(self, atomic: bool) -> None:
        mine, other = StrayTrigger(name="mine"), StrayTrigger(name="other")
        there = live(deployment(description="old", tags=(), triggers=(mine, other)), owner=None)
        notebook = Notebook.holding(there)

        async def write(id_: str, config: DeploymentConfig, taken_over: Collection[str]) -> None:
            notebook.calls.append(("triggers", id_, config.triggers, taken_over))
            if config.tags:
                raise ServerError("The server answered 422.")

        plan = plan_of([deployment(triggers=({"name": "mine"},))], [there], adopt=["*"])
        result = await apply_plan(plan, notebook, write_triggers=write, atomic=atomic)
        assert outcomes(result) == [("etl/daily", "failed")]
        id_ = there.id
        expected: list[tuple[Any, ...]] = [
            ("update", id_, ("description",)),
            ("triggers", id_, ({"name": "mine"},), {"mine"}),
        ]
        back: list[tuple[Any, ...]] = [("update", id_, ("description",)), ("triggers", id_, (mine,), {"mine"})]
        assert notebook.calls == expected + (back if atomic else [])


NO = ServerError("The server answered 422.")
EARLY, LATE, GOES = cron("0 1 * * *", slug="early"), cron("0 2 * * *", slug="late"), cron("0 3 * * *", slug="goes")


class TestAtomic:
    async def test_does_all_when_all_goes_well(self) -> None:
        there = [live(deployment("a/old")), live(deployment("b/x", description="old"))]
        notebook = Notebook.holding(*there)
        result = await apply_plan(plan_of([deployment("b/x"), deployment("c/new")], there), notebook, atomic=True)
        assert result.status == "completed"
        assert [call[:2] for call in notebook.calls] == [
            ("update", "id-of-b/x"),
            ("create", "c/new"),
            ("delete", "id-of-a/old"),
        ]

    async def test_deletes_schedules_and_then_deployments_last(self) -> None:
        there = [live(deployment("a/x", schedules=(EARLY, GOES))), live(deployment("b/old"))]
        notebook = Notebook.holding(*there)
        await apply_plan(plan_of([deployment("a/x", schedules=(EARLY, LATE)), deployment("z/new")], there), notebook)
        usual = [call[0] for call in notebook.calls]
        notebook = Notebook.holding(*there)
        plan = plan_of([deployment("a/x", schedules=(EARLY, LATE)), deployment("z/new")], there)
        await apply_plan(plan, notebook, atomic=True)
        assert usual == ["create schedule", "delete schedule", "create", "delete"]
        assert [call[0] for call in notebook.calls] == ["create schedule", "create", "delete schedule", "delete"]

    async def test_sets_everything_back_after_a_failure(self) -> None:
        off = replace(LATE, active=True)
        there = [
            live(deployment("a/x", schedules=(EARLY, off, GOES), description="old", tags=("t", OWNER.tag))),
            live(deployment("b/pause")),
            live(deployment("old/x", paused=True)),
        ]
        wanted = [
            deployment("a/x", schedules=(EARLY, replace(off, active=False), cron(slug="new")), description="new"),
            deployment("b/pause", paused=True),
            deployment("c/new"),
            deployment("z/bad"),
        ]
        notebook = Notebook.holding(*there, fails={"z/bad": NO})
        result = await apply_plan(plan_of(wanted, there), notebook, atomic=True)

        assert notebook.there == {item.id: item for item in there}
        assert outcomes(result) == [
            ("a/x", "restored"),
            ("b/pause", "restored"),
            ("c/new", "restored"),
            ("z/bad", "failed"),
            ("old/x", "skipped"),
        ]
        assert result.results[0].error == "it was made and then set back: --atomic, and z/bad failed"
        assert "The server answered 422." in (result.results[3].error or "")
        assert (result.status, sum(result.summary.values())) == ("degraded", 0)

    async def test_sets_back_what_was_written_of_the_change_that_failed(self) -> None:
        there = live(deployment("a/x", description="old", schedules=(EARLY,)))
        wanted = deployment("a/x", description="new", paused=True, schedules=(EARLY, LATE))
        notebook = Notebook.holding(there)

        async def refused(*_: Any, **__: Any) -> str:
            raise NO

        notebook.create_schedule = refused  # type: ignore[method-assign]
        result = await apply_plan(plan_of([wanted], [there]), notebook, atomic=True)
        assert notebook.there == {there.id: there}
        assert outcomes(result) == [("a/x", "failed")]
        assert "was set back" in (result.results[0].error or "")

    async def test_creates_again_what_it_deleted_with_its_labels(self) -> None:
        there = [live(deployment("a/old", paused=True, schedules=(EARLY,))), live(deployment("b/stuck"))]
        notebook = Notebook.holding(*there, fails={"id-of-b/stuck": NO})
        result = await apply_plan(plan_of([], there), notebook, atomic=True)
        assert notebook.there == {item.id: item for item in there}
        assert notebook.calls[-1] == ("create", "a/old", {"of": "id-of-a/old"})
        assert outcomes(result) == [("a/old", "restored"), ("b/stuck", "failed")]
        assert "new id" in (result.results[0].error or "")

    async def test_says_what_could_not_be_set_back(self) -> None:
        there = live(deployment("a/x", description="old"))
        notebook = Notebook.holding(there, fails={"z/bad": NO})
        plan = plan_of([deployment("a/x", description="new"), deployment("b/new"), deployment("z/bad")], [there])
        notebook.delete_deployment = notebook_refuses  # type: ignore[method-assign]
        result = await apply_plan(plan, notebook, atomic=True)
        assert outcomes(result) == [("a/x", "restored"), ("b/new", "failed"), ("z/bad", "failed")]
        assert "What was written of it (create) could not be set back" in (result.results[1].error or "")

    async def test_writes_nothing_where_something_is_in_the_way_from_the_start(self) -> None:
        notebook = Notebook()
        plan = plan_of([deployment("a/x"), deployment("b/x")], [live(deployment("b/x"), owner=None)])
        result = await apply_plan(plan, notebook, atomic=True)
        assert outcomes(result) == [("a/x", "skipped"), ("b/x", "skipped")]
        assert result.results[0].error == "not tried: --atomic, and b/x cannot be done"
        assert notebook.calls == []

    async def test_does_not_take_back_what_is_not_ours(self) -> None:
        """A create that failed because somebody else was faster leaves his deployment alone."""
        theirs = live(deployment("a/x", tags=()), owner=None)
        notebook = Notebook.holding(theirs, fails={"a/x": NO})
        await apply_plan(plan_of([deployment("a/x")]), notebook, atomic=True)
        assert notebook.there == {theirs.id: theirs}

    async def test_is_set_back_when_it_is_interrupted_pools_and_limits_too(self) -> None:
        there = live(deployment("a/x", description="old"))
        wanted = [deployment("a/x", description="new"), deployment("b/new"), deployment("c/new")]
        plan = plan_of(wanted, [there], resources=plan_resources(Resources(limits=(TAG,)), LiveResources()))
        notebook, notes = Notebook.holding(there), Notes()
        result = await interrupted_at(notebook, "b/new", plan, atomic=True, resources=notes)
        assert notebook.there == {there.id: there}
        assert notes.said == ["create database", "remove database"]
        assert outcomes(result) == [("a/x", "restored"), ("b/new", "restored"), ("c/new", "skipped")]
        assert [item.status for item in result.resources] == ["restored"]
        assert (result.status, result.wrote) == ("interrupted", False)

    async def test_is_not_undone_where_something_could_not_be_set_back(self) -> None:
        """The hold of such a rollback stays: something of it stands."""
        there = [live(deployment(f"{name}/x", description="old")) for name in "ab"]
        wanted = [deployment(f"{name}/x", description="new") for name in "ab"]
        notebook = Notebook.holding(*there)
        update = notebook.update_deployment

        async def refuse(id_: str, config: DeploymentConfig, fields: tuple[str, ...]) -> None:
            if config.deployment_path == "b/x" or config.description == "old":
                raise NO
            await update(id_, config, fields)

        notebook.update_deployment = refuse  # type: ignore[method-assign]
        result = await apply_plan(plan_of(wanted, there), notebook, atomic=True)
        assert outcomes(result) == [("a/x", "failed"), ("b/x", "failed")]
        assert "could not be set back" in (result.results[0].error or "")
        terms = Terms(is_atomic=True)
        assert (result.is_half_set_back, is_undone(result, terms)) == (True, False)
        assert is_undone(replace(result, is_half_set_back=False), terms)

    async def test_takes_back_a_limit_whose_create_was_cut_off(self) -> None:
        notes, told = Notes(), list[DeploymentResult]()
        with anyio.CancelScope() as scope:

            async def hang(_: Spec) -> bool:
                scope.cancel()
                await anyio.sleep_forever()
                raise AssertionError("it was cut off")

            notes.create = hang  # type: ignore[method-assign]
            plan = plan_of([deployment()], resources=plan_resources(Resources(limits=(TAG,)), LiveResources()))
            more = {"writers": Writers(grace=0), "resources": notes, "on_interrupt": told.append}
            await apply_plan(plan, Notebook(), atomic=True, **more)
        assert notes.said == ["remove database"]
        assert told[0].resources[0].error == "It was interrupted. What had arrived of it was set back."

    async def test_stops_at_a_limit_that_fails(self) -> None:
        limits = plan_resources(Resources(limits=(RATE, TAG)), LiveResources())
        notebook, notes = Notebook(), Notes(fails={"database": NO})
        result = await apply_plan(plan_of([deployment()], resources=limits), notebook, atomic=True, resources=notes)
        assert (notebook.calls, notes.said) == ([], ["create api", "remove api"])
        assert [(item.name, item.status) for item in result.resources] == [("api", "restored"), ("database", "failed")]
        assert outcomes(result) == [("etl/daily", "skipped")]
        assert "tag limit database failed" in (result.results[0].error or "")

    async def test_writes_nothing_where_a_pool_is_in_conflict(self) -> None:
        there = LiveResources(pools=(LivePool(spec=PoolSpec(name="p", type="docker")),))
        wanted = Resources(pools=(PoolSpec(name="p", type="process"),), limits=(TAG,))
        notebook, notes = Notebook(), Notes()
        plan = plan_of([deployment()], resources=plan_resources(wanted, there))
        result = await apply_plan(plan, notebook, atomic=True, resources=notes)
        assert (notebook.calls, notes.said) == ([], [])
        pool, limit = result.resources
        assert (pool.status, limit.status) == ("skipped", "skipped")
        assert "'docker'" in (pool.error or "")
        assert "work pool p cannot be done" in (limit.error or "")

    async def test_is_set_back_to_the_end_though_somebody_interrupts_that(self) -> None:
        there = [live(deployment(f"{name}/x", description="old")) for name in "abcd"]
        wanted = [deployment(f"{name}/x", description="new") for name in "abcd"]
        limits = plan_resources(Resources(limits=(RATE, TAG)), LiveResources())
        notebook, notes = Notebook.holding(*there, fails={}), Notes()
        update = notebook.update_deployment

        async def interrupt(id_: str, config: DeploymentConfig, fields: tuple[str, ...]) -> None:
            if config.deployment_path == "d/x" and config.description == "new":
                raise NO
            if config.deployment_path == "c/x" and config.description == "old":
                task.cancel()
                await anyio.lowlevel.checkpoint()
            await update(id_, config, fields)

        notebook.update_deployment = interrupt  # type: ignore[method-assign]
        plan = plan_of(wanted, there, resources=limits)
        task = asyncio.create_task(apply_plan(plan, notebook, atomic=True, resources=notes))
        await asyncio.wait([task])
        assert notebook.there == {item.id: item for item in there}
        assert notes.said[-2:] == ["remove database", "remove api"]


async def interrupted_at(
    notebook: Notebook, path: str, plan: Plan, *, hangs: bool = False, **more: Any
) -> DeploymentResult:
    """The result as it is told when somebody interrupts while the deployment of this path is being created."""
    told: list[DeploymentResult] = []
    create = notebook.create_deployment

    with anyio.CancelScope() as scope:

        async def interrupt(config: DeploymentConfig, labels: Mapping[str, str]) -> str:
            if config.deployment_path == path:
                scope.cancel()
                await (anyio.sleep_forever() if hangs else anyio.lowlevel.checkpoint())
            return await create(config, labels)

        notebook.create_deployment = interrupt  # type: ignore[method-assign]
        await apply_plan(plan, notebook, on_interrupt=told.append, **more)
    assert scope.cancelled_caught
    return told[0]


class TestAnInterruption:
    async def test_lets_the_limit_under_way_be_written_and_no_further_one(self) -> None:
        limits = [LimitSpec(scope="tag", name=f"t{number}", slots=1) for number in range(3)]
        notes, told = Notes(), list[DeploymentResult]()
        create = notes.create
        with anyio.CancelScope() as scope:

            async def interrupt(spec: Spec) -> bool:
                scope.cancel()
                await anyio.lowlevel.checkpoint()
                return await create(spec)

            notes.create = interrupt  # type: ignore[method-assign]
            plan = plan_of([deployment()], resources=plan_resources(Resources(limits=tuple(limits)), LiveResources()))
            await apply_plan(plan, Notebook(), resources=notes, on_interrupt=told.append)
        assert notes.said == ["create t0"]
        assert [item.status for item in told[0].resources] == ["applied", "skipped", "skipped"]

    async def test_lets_the_write_under_way_end_and_tells_what_was_done(self) -> None:
        notebook = Notebook()
        wanted = [deployment(f"{name}/x") for name in "abc"]
        result = await interrupted_at(notebook, "b/x", plan_of(wanted))
        assert outcomes(result) == [("a/x", "applied"), ("b/x", "applied"), ("c/x", "skipped")]
        assert [item.config.deployment_path for item in notebook.there.values()] == ["a/x", "b/x"]
        assert result.results[2].error == "not tried: it was interrupted"
        assert (result.status, result.wrote) == ("interrupted", True)

    async def test_cuts_off_what_does_not_end(self) -> None:
        plan = plan_of([deployment("a/x"), deployment("b/x")])
        result = await interrupted_at(Notebook(), "a/x", plan, hangs=True, writers=Writers(grace=0))
        assert outcomes(result) == [("a/x", "failed"), ("b/x", "skipped")]
        assert result.results[0].error == "It was interrupted."


async def notebook_refuses(*_: Any) -> None:
    raise NO


def test_nothing_to_write_still_tells_a_pool_in_conflict() -> None:
    pools = (PoolSpec(name="p", type="process"), PoolSpec(name="q", type="process"))
    there = LiveResources(pools=(LivePool(spec=replace(pools[0], type="docker")), LivePool(spec=pools[1])))
    resources = plan_resources(Resources(pools=pools), there)
    result = untouched(plan_of([deployment()], [live(deployment())], resources=resources))
    assert [(item.name, item.status) for item in result.resources] == [("p", "skipped"), ("q", "unchanged")]
    assert result.status == "degraded" and "'docker'" in str(result.resources[0].error)


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
