"""Placeholders of desired deployments, as far as no server is needed; the rest is an integration test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.settings import PREFECT_DEFAULT_DOCKER_BUILD_NAMESPACE, temporary_settings
from prefect.utilities.dockerutils import get_prefect_image_name

from orchestrator.config import Policy
from orchestrator.deploy_steps import BUILD_STEPS, implied_step, steps_of
from orchestrator.model import DeploymentConfig, DeployStep, Desired, ImageSpec, ScheduleConfig, ValidationError
from orchestrator.plan import make_plan
from orchestrator.server import PrefectServer
from orchestrator.templating import asks_server, resolve
from tests.unit.builders import API_URL, OWNER, deployment, image_spec, live, places, write_files

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
    monkeypatch.setenv("WHERE", "shop")
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


OWN = "shop.steps.prepare"


def build(**inputs: Any) -> dict[str, Any]:
    return {BUILD_STEPS[0]: {"id": "build-image", "image_name": "registry.example.com/shop/etl", **inputs}}


def steps(*build_steps: Mapping[str, Any], folder: str = ".") -> tuple[DeployStep, ...]:
    return steps_of(build_steps, (), folder, SOURCE)


async def image(root: Path | str = "", folder: str = ".", **inputs: Any) -> ImageSpec:
    """The image of a deployment that has one build step."""
    config = deployment(source=SOURCE, steps=steps(build(**inputs), folder=folder))
    found = await resolve(Desired(owner=OWNER, deployments=(config,), root=str(root)), NO_SERVER)
    assert found.problems == ()
    spec = found.deployments[0].steps[0].image
    assert spec is not None
    return spec


class TestImages:
    async def test_every_field_that_takes_placeholders(self) -> None:
        found = await image(
            image_name="registry.example.com/{{ $WHERE }}/etl",
            dockerfile="docker/etl.Dockerfile",
            tag="{{ $PLACE }}",
            additional_tags=["x-{{ PLACE }}", "y"],
            target="{{ $PLACE }}",
            platform="{{ $PLACE }}/x",
            buildargs={"A": "{{ $PLACE }}", "B": "in {{ $PLACE }}"},
        )
        assert found == ImageSpec(
            repository="registry.example.com/shop/etl",
            dockerfile="docker/etl.Dockerfile",
            target="Vienna",
            platform="Vienna/x",
            arguments=(("A", "Vienna"), ("B", "in Vienna")),
        )
        assert found.aliases == ("Vienna", "x-Vienna", "y")

    async def test_of_a_template_too(self) -> None:
        spec = image_spec(repository="registry.example.com/{{ $WHERE }}", arguments=(("A", "{{ $PLACE }}"),))
        ((step,),) = [config.steps for config in (await resolved(deployment(steps=(implied_step(spec),)))).deployments]
        assert step == implied_step(replace(spec, repository="registry.example.com/shop", arguments=(("A", "Vienna"),)))

    async def test_without_placeholders_they_stay_as_they_are(self) -> None:
        written = steps(build(tag="dev", buildargs={"A": "1"}), {OWN: {"id": "own", "text": "{{ build-image.tag }}"}})
        assert (await one(steps=written)).steps == written

    async def test_what_prefect_runs_is_filled_by_prefect(self) -> None:
        written = steps({OWN: {"token": "{{ $API_TOKEN }}", "place": "{{ $NOT_SET }}"}})
        assert (await one(steps=written)).steps == written

    async def test_a_value_that_is_not_set_takes_out_the_deployment(self) -> None:
        found = await fault(steps=steps(build(buildargs={"A": "{{ $NOT_SET }}"})))
        assert "build[0].arguments.A: the environment variable NOT_SET is not set" in found.message

    async def test_the_registrys_user_is_looked_up_when_it_is_needed(self) -> None:
        credentials = "{{ prefect.blocks.docker-registry-credentials.team }}"
        config = deployment(steps=(implied_step(image_spec(credentials=credentials)),))
        assert asks_server(Desired(owner=OWNER, deployments=(config,)))
        found = await resolved(config)
        assert found.deployments[0].steps[0].image == image_spec()
        assert found.deployments[0].steps[0].image.credentials == credentials

    async def test_without_one_nothing_is_asked(self) -> None:
        config = deployment(steps=(implied_step(image_spec()),), job_variables={"image": "{{ image }}"})
        assert not asks_server(Desired(owner=OWNER, deployments=(config,)))


class TestSecretArguments:
    """Of a build argument that is secret only the name counts."""

    async def split(self, **arguments: str) -> tuple[dict[str, str], dict[str, str]]:
        found = await image(buildargs=arguments)
        return dict(found.arguments), dict(found.secret_arguments)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("A", "{{ $API_TOKEN }}"),
            ("A", "https://me@host/{{ API_TOKEN }}"),
            ("API_TOKEN", "in clear"),
            ("PIP_INDEX_URL", "https://me:hunter2@pypi.example.com/simple"),
            ("PASSWORD", "{{ $PLACE }}"),
            ("A", "ghp_0123456789abcdefghijABCDEFGHIJ012345"),
        ],
    )
    async def test_are_told_from_others(self, name: str, value: str) -> None:
        plain, secret = await self.split(**{name: value, "OTHER": "x"})
        filled = value.replace("{{ $API_TOKEN }}", "do-not-show-it").replace("{{ API_TOKEN }}", "do-not-show-it")
        assert plain == {"OTHER": "x"}
        assert secret == {name: filled.replace("{{ $PLACE }}", "Vienna")}

    @pytest.mark.parametrize(
        ("name", "value"), [("A", "x"), ("AUTHOR", "me"), ("URL", "https://host/x"), ("A", "{{ $PLACE }}")]
    )
    async def test_are_not_seen_everywhere(self, name: str, value: str) -> None:
        plain, secret = await self.split(**{name: value})
        assert (set(plain), secret) == ({name}, {})

    async def test_are_in_order(self) -> None:
        found = await image(buildargs={"B_TOKEN": "2", "A_TOKEN": "1", "Z": "", "Y": ""})
        assert found.secret_arguments == (("A_TOKEN", "1"), ("B_TOKEN", "2"))
        assert found.arguments == (("Y", ""), ("Z", ""))

    async def test_are_not_shown(self) -> None:
        assert "do-not-show-it" not in repr(await image(buildargs={"A": "{{ $API_TOKEN }}"}))


class TestAutoDockerfile:
    async def text(self, root: Path, files: dict[str, str], folder: str = ".") -> str:
        found = await image(write_files(root / "shop", files), folder=folder, dockerfile="auto")
        assert found.dockerfile_text is not None
        assert found.dockerfile == "Dockerfile"
        return found.dockerfile_text

    async def test_is_the_one_that_prefect_writes(self, tmp_path: Path) -> None:
        assert await self.text(tmp_path, {"x.py": ""}) == (
            f"FROM {get_prefect_image_name()}\nCOPY . /opt/prefect/shop/\nWORKDIR /opt/prefect/shop/\n"
        )

    async def test_installs_the_requirements(self, tmp_path: Path) -> None:
        lines = (await self.text(tmp_path, {"requirements.txt": ""})).splitlines()
        assert lines[1:3] == [
            "COPY requirements.txt /opt/prefect/shop/requirements.txt",
            "RUN uv pip install -r /opt/prefect/shop/requirements.txt",
        ]

    async def test_is_about_the_folder_of_its_file(self, tmp_path: Path) -> None:
        text = await self.text(tmp_path, {"requirements.txt": "", "jobs/x.py": ""}, folder="jobs")
        assert text.splitlines()[1:] == ["COPY . /opt/prefect/jobs/", "WORKDIR /opt/prefect/jobs/"]

    async def test_any_other_is_read_when_it_is_built(self) -> None:
        assert (await image(dockerfile="docker/auto")).dockerfile_text is None


class TestImageNames:
    async def test_get_the_namespace_that_prefect_gives_them(self) -> None:
        with temporary_settings({PREFECT_DEFAULT_DOCKER_BUILD_NAMESPACE: "team"}):
            assert (await image(image_name="etl")).repository == "team/etl"
            assert (await image(image_name="shop/etl")).repository == "shop/etl"
        assert (await image(image_name="etl")).repository == "etl"

    async def test_but_for_those_of_templates(self) -> None:
        spec = image_spec(repository="shop-flow", is_pushed=False)
        with temporary_settings({PREFECT_DEFAULT_DOCKER_BUILD_NAMESPACE: "team"}):
            assert (await one(steps=(implied_step(spec),))).steps[0].image == spec

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("shop/Etl", "it holds capital letters"),
            ("shop/my etl", "it holds blanks"),
            ("https://registry.example.com/etl", "it is an address"),
            ("{{ $EMPTY }}", "it is empty"),
            ("shop/etl:dev", "has a tag"),
            ("registry.example.com:5000/shop/etl:dev", "has a tag"),
            (f"shop/etl@sha256:{'0' * 64}", "has a digest"),
        ],
    )
    async def test_that_are_none_are_a_fault(self, monkeypatch: pytest.MonkeyPatch, name: str, reason: str) -> None:
        monkeypatch.setenv("EMPTY", "")
        found = await fault(steps=steps(build(image_name=name)))
        assert found.code == "DPL016"
        assert found.message.startswith("The deployment etl/daily is left out: build: ") and reason in found.message

    @pytest.mark.parametrize("name", ["{{ $API_TOKEN }}/My etl", "{{ $API_TOKEN }}/etl:dev", "x/{{ $API_TOKEN }}/Y/z"])
    async def test_and_show_nothing_secret(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        for secret in ("do-not-show-it", "Do-Not-Show-It"):
            monkeypatch.setenv("API_TOKEN", secret)
            found = await fault(steps=steps(build(image_name=name)))
            assert "do-not-show-it" not in f"{found.message} {found.remediation}".lower()


class TestOutputsOfSteps:
    """A placeholder for what a step gives may wait until the step has run, where that is soon enough."""

    STEPS = steps(build(), {OWN: {"id": "own"}})

    @pytest.mark.parametrize(
        "fields",
        [
            {"version": "{{ build-image.tag }}"},
            {"description": "{{ own.anything }} {{ anything }}"},
            {"tags": ("{{ own.tags }}", OWNER.tag)},
            {"parameters": {"a": ["{{ own.a }}"]}},
            {"job_variables": {"image": "{{ build-image.image }}", "env": {"A": "{{ own.a }}"}}},
            {"pull_steps": ({"a": {"b": "{{ own.c }}"}},)},
        ],
    )
    async def test_stays(self, fields: dict[str, Any]) -> None:
        found = await one(steps=self.STEPS, **fields)
        assert {name: getattr(found, name) for name in fields} == fields

    async def test_stays_in_triggers(self) -> None:
        found = await one(steps=self.STEPS, triggers=({**EVENT, "parameters": {"a": "{{ own.a }}"}},))
        assert found.triggers[0]["parameters"] == {"a": "{{ own.a }}"}

    @pytest.mark.parametrize(
        "fields",
        [
            {"work_pool": "{{ own.pool }}"},
            {"work_queue": "{{ own.queue }}"},
            {"deployment_name": "{{ build-image.tag }}"},
            {"schedules": (ScheduleConfig(cron="0 4 * * *", timezone="{{ own.zone }}"),)},
        ],
    )
    async def test_is_a_fault_where_it_is_needed_at_once(self, fields: dict[str, Any]) -> None:
        config = replace(deployment(source=SOURCE, steps=self.STEPS), **fields)
        found = await resolved(config)
        assert (found.deployments, len(found.problems)) == ((), 1)

    @pytest.mark.parametrize("text", ["{{ build-image.digest }}", "{{ other.image }}", "{{ $NOT_SET }}"])
    async def test_that_none_gives_is_a_fault(self, text: str) -> None:
        await fault(steps=self.STEPS, version=text)

    async def test_of_a_known_step_only_what_it_gives(self) -> None:
        shell = steps({"prefect.deployments.steps.run_shell_script": {"id": "sh", "script": "date"}})
        assert (await one(steps=shell, version="{{ sh.stdout }}")).version == "{{ sh.stdout }}"
        await fault(steps=shell, version="{{ sh.image }}")
        await fault(steps=shell, version="{{ image }}")

    async def test_a_tag_may_wait_for_a_step_before_it(self) -> None:
        found = await one(steps=steps({OWN: {"id": "own"}}, build(tag="{{ own.commit }}")))
        spec = found.steps[1].image
        assert spec is not None and spec.aliases == ("{{ own.commit }}",)

    @pytest.mark.parametrize(
        "inputs",
        [
            {"buildargs": {"A": "{{ own.commit }}"}},
            {"buildargs": {"A": "{{ commit }}"}},
            {"buildargs": {"A": "{{ build-image.tag }}"}},
            {"target": "{{ own.target }}"},
            {"platform": "{{ tag }}"},
            {"image_name": "shop/{{ own.name }}"},
            {"tag": "{{ own.commit }}"},
            {"additional_tags": ["{{ build-image.tag }}"]},
        ],
    )
    async def test_nothing_of_an_image_may_wait_for_one_behind_it(self, inputs: dict[str, Any]) -> None:
        found = await fault(steps=steps(build(**inputs), {OWN: {"id": "own"}}))
        assert found.message.startswith("The deployment etl/daily is left out: build[0].")

    async def test_and_its_arguments_for_none_at_all(self) -> None:
        """Who lets an image wait for a step leaves it to Prefect: `deploy_steps`."""
        spec = image_spec(arguments=(("A", "{{ own.commit }}"),), aliases=("{{ own.commit }}",))
        waiting = (DeployStep(function=OWN, id="own"), DeployStep(function=BUILD_STEPS[0], image=spec))
        found = await fault(steps=waiting)
        assert "build[1].arguments.A: " in found.message
