"""Placeholders of desired deployments, as far as no server is needed; the rest is an integration test."""

from __future__ import annotations

from typing import Any, cast

import pytest

from orchestrator.config import Policy
from orchestrator.model import DeploymentConfig, Desired, ScheduleConfig, ValidationError
from orchestrator.plan import make_plan
from orchestrator.server import PrefectServer
from orchestrator.templating import resolve
from tests.unit.builders import API_URL, OWNER, deployment, live, places

SOURCE = "prefect.yaml:3"
NO_SERVER = cast(PrefectServer, None)  # to ask it for anything is an error


async def resolved(*configs: DeploymentConfig) -> Desired:
    return await resolve(Desired(owner=OWNER, deployments=configs), NO_SERVER)


async def one(**fields: Any) -> DeploymentConfig:
    found = await resolved(deployment(source=SOURCE, **fields))
    assert found.problems == ()
    (config,) = found.deployments
    return config


async def fault(**fields: Any) -> ValidationError:
    found = await resolved(deployment(source=SOURCE, **fields))
    assert found.deployments == ()
    (problem,) = found.problems
    assert places((problem,)) in ([("DPL016", SOURCE)], [("DPL017", SOURCE)])
    assert (problem.severity, problem.skips, problem.declaration) == ("error", True, SOURCE)
    assert problem.remediation
    return problem


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "Vienna")
    monkeypatch.setenv("API_TOKEN", "do-not-show-it")
    monkeypatch.delenv("NOT_SET", raising=False)


class TestEnvironment:
    @pytest.mark.parametrize("written", ["{{ $PLACE }}", "{{$PLACE}}", "{{ PLACE }}"])
    async def test_with_and_without_dollar(self, written: str) -> None:
        assert (await one(parameters={"where": [written]})).parameters == {"where": ["Vienna"]}

    async def test_inside_of_a_text(self) -> None:
        assert (await one(description="In {{ $PLACE }}, {{ $PLACE }}.")).description == "In Vienna, Vienna."

    async def test_every_field_that_takes_them(self) -> None:
        schedule = ScheduleConfig(
            cron="0 4 * * *", timezone="{{ $PLACE }}", slug="{{ $PLACE }}", parameters={"a": "{{ $PLACE }}"}
        )
        found = await one(
            version="{{ $PLACE }}",
            tags=("{{ $PLACE }}", "Vienna", OWNER.tag),
            work_pool="{{ $PLACE }}",
            work_queue="{{ $PLACE }}",
            job_variables={"env": {"A": "{{ $PLACE }}"}},
            schedules=(schedule,),
        )
        assert (found.version, found.work_pool, found.work_queue) == ("Vienna",) * 3
        assert found.tags == ("Vienna", OWNER.tag)
        assert found.job_variables == {"env": {"A": "Vienna"}}
        assert found.schedules == (
            ScheduleConfig(cron="0 4 * * *", timezone="Vienna", slug="Vienna", parameters={"a": "Vienna"}),
        )

    async def test_of_pull_steps_only_those_that_are_set(self) -> None:
        step = {"clone": {"branch": "{{ $PLACE }}", "token": "{{ prefect.blocks.secret.x }}", "to": "{{ $NOT_SET }}"}}
        (found,) = (await one(pull_steps=(step,))).pull_steps
        assert found == {"clone": {**step["clone"], "branch": "Vienna"}}

    async def test_a_name_of_which_the_environment_decides(self) -> None:
        found = await resolved(deployment("etl/{{ $PLACE }}-daily"))
        assert [config.deployment_path for config in found.deployments] == ["etl/Vienna-daily"]

    async def test_one_whose_name_betrays_a_secret_is_concealed(self) -> None:
        found = await one(job_variables={"env": {"A": "{{ $API_TOKEN }}", "B": "{{ $PLACE }}"}})
        assert found.job_variables == {"env": {"A": "do-not-show-it", "B": "Vienna"}}
        assert found.concealed == ("do-not-show-it",)

    async def test_in_pull_steps_too(self) -> None:
        assert (await one(pull_steps=({"a": {"b": "{{ $API_TOKEN }}"}},))).concealed == ("do-not-show-it",)


class TestSwitches:
    @pytest.mark.parametrize(("value", "active"), [("true", True), ("false", False), ("0", False), ("yes", True)])
    async def test_are_read_as_prefect_reads_them(
        self, monkeypatch: pytest.MonkeyPatch, value: str, active: bool
    ) -> None:
        monkeypatch.setenv("SWITCH", value)
        schedule = ScheduleConfig(cron="0 4 * * *", placeholders={"active": "{{ $SWITCH }}", "day_or": "{{ $SWITCH }}"})
        (found,) = (await one(schedules=(schedule,))).schedules
        assert (found.active, found.day_or, found.placeholders) == (active, active, {})

    async def test_that_are_none(self) -> None:
        schedule = ScheduleConfig(cron="0 4 * * *", placeholders={"active": "{{ $PLACE }}"})
        found = await fault(schedules=(schedule,))
        assert "schedules[0].active: must be true or false" in found.message
        assert "Vienna" not in found.message


class TestLeftAlone:
    @pytest.mark.parametrize("text", ["{{ ctx.flow_run.name }}", "{{ a | upper }}", "{place}", "{% if %}", "{{}}"])
    async def test_what_is_none_of_ours(self, text: str) -> None:
        config = deployment(parameters={"a": text}, job_variables={"b": text})
        assert (await resolved(config)).deployments == (config,)

    async def test_without_placeholders_nothing_changes_and_nothing_is_asked(self) -> None:
        config = deployment(parameters={"a": {"b": (1, 2)}}, schedules=(ScheduleConfig(interval=5),))
        assert (await resolved(config)).deployments == (config,)

    async def test_keys_are_no_placeholders(self) -> None:
        assert (await one(parameters={"{{ $PLACE }}": 1})).parameters == {"{{ $PLACE }}": 1}


class TestUnfilled:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("{{ $NOT_SET }}", "the environment variable NOT_SET is not set"),
            ("x{{ NOT_SET }}", "nothing fills {{ NOT_SET }}"),
            ("{{ build-image.image }}", "{{ build-image.image }} can only be the output of a build or push step"),
        ],
    )
    async def test_takes_out_the_one_deployment(self, text: str, reason: str) -> None:
        found = await fault(job_variables={"env": {"A": text}})
        assert f"The deployment etl/daily is left out: job_variables.env.A: {reason}" in found.message

    async def test_the_others_go_on(self) -> None:
        found = await resolved(deployment("etl/a", version="{{ $NOT_SET }}"), deployment("etl/b"))
        assert [config.deployment_path for config in found.deployments] == ["etl/b"]
        assert found.skipped_paths == ("etl/a",)

    async def test_all_of_them_are_told(self) -> None:
        found = await resolved(deployment(source=SOURCE, version="{{ $NOT_SET }}", tags=("a", "{{ $NOR_THIS }}")))
        assert [each.message.partition(": ")[2].partition(":")[0] for each in found.problems] == ["version", "tags[1]"]

    async def test_those_of_all_kinds_are_told_together(self) -> None:
        found = await resolved(deployment(parameters={"a": "{{ $NOT_SET }} {{ x }}", "b": "{{ step.key }}"}))
        assert len(found.problems) == 3

    async def test_what_is_on_the_server_stays(self) -> None:
        asked = await resolved(deployment(version="{{ $NOT_SET }}"))
        assert removed(asked, deployment()) == []

    async def test_even_where_its_name_is_not_known(self) -> None:
        asked = await resolved(deployment("etl/{{ $NOT_SET }}-daily"))
        assert removed(asked, deployment("etl/here-daily")) == []
        assert removed(asked, deployment("etl/x", entrypoint="flows/other.py:etl")) == ["etl/x"]


def removed(asked: Desired, there: DeploymentConfig) -> list[str]:
    plan = make_plan(asked, [live(there)], api_url=API_URL, policy=Policy())
    return [change.deployment for change in plan.changes if change.action == "delete"]


class TestTwins:
    async def test_names_that_turn_out_to_be_one_are_a_fault_of_both(self) -> None:
        a, b = deployment("etl/Vienna", source="a.yaml:1"), deployment("etl/{{ $PLACE }}", source="b.yaml:1")
        found = await resolved(a, b)
        assert found.deployments == ()
        assert places(found.problems) == [("DPL002", "a.yaml:1"), ("DPL002", "b.yaml:1")]
        assert found.skipped_paths == ("etl/Vienna", "etl/Vienna")


EVENT = {"expect": ["b.happened", "a.happened"], "match": {"prefect.resource.id": "x"}}


class TestTriggers:
    async def test_get_one_form(self) -> None:
        (found,) = (await one(triggers=(EVENT,))).triggers
        assert found["name"] == "daily__automation_1"
        assert found["expect"] == ["a.happened", "b.happened"]
        assert found["match"] == {"prefect.resource.id": "x"}

    async def test_that_form_stays_as_it_is(self) -> None:
        once = await one(triggers=(EVENT, {"name": "own", **EVENT}))
        assert (await resolved(once)).deployments == (once,)

    async def test_values_of_events_are_filled_when_one_comes(self) -> None:
        trigger = {**EVENT, "parameters": {"a": "{{ event.name }} in {{ $PLACE }}"}}
        (found,) = (await one(triggers=(trigger,))).triggers
        assert found["parameters"] == {"a": "{{ event.name }} in Vienna"}

    async def test_anywhere_else_such_a_value_is_a_fault(self) -> None:
        found = await fault(triggers=({**EVENT, "description": "{{ event.name }}"},))
        assert "triggers[0].description: " in found.message

    @pytest.mark.parametrize(
        ("trigger", "reason"),
        [
            ({"within": "soon"}, "within: "),
            ({"type": "nothing"}, "'nothing'"),
            ({"type": "compound", "require": "some", "triggers": [EVENT]}, "require"),
            ({"posture": "Proactive", "within": 5}, "10 seconds"),
            ({"posture": "Proactive", "within": [5]}, "TypeError"),
        ],
    )
    async def test_a_wrong_one_is_a_fault(self, trigger: dict[str, Any], reason: str) -> None:
        found = await fault(triggers=(trigger,))
        assert found.code == "DPL017"
        assert reason in found.message
