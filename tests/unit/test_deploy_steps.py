"""Build and push steps of a prefect.yaml: which images they make that we build ourselves, and which Prefect makes.

What the steps take is held against prefect-docker itself and against the docker SDK to which it hands the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
from docker.api.build import BuildApiMixin
from prefect_docker.deployments import steps as prefect_docker_steps

from orchestrator.deploy_steps import (
    BUILD_STEPS,
    IMAGE_OUTPUTS,
    PUSH_STEPS,
    TEMPLATE_STEP,
    implied_step,
    output_of,
    steps_of,
)
from orchestrator.model import DeployStep, ImageSpec
from tests.unit.builders import image_spec

BUILD, PUSH = BUILD_STEPS[0], PUSH_STEPS[0]
SHELL = "prefect.deployments.steps.run_shell_script"
OWN = "shop.steps.prepare"
SOURCE = "prefect.yaml:3"
NAME = "registry.example.com/shop/etl"
CREDENTIALS = "{{ prefect.blocks.docker-registry-credentials.team }}"

Step = Mapping[str, Any]


def build(**inputs: Any) -> Step:
    return {BUILD: {"id": "build-image", "image_name": NAME, **inputs}}


def push(**inputs: Any) -> Step:
    return {PUSH: {"image_name": "{{ build-image.image_name }}", "tag": "{{ build-image.tag }}", **inputs}}


def read(*steps: Step, pushes: tuple[Step, ...] = (), folder: str = ".") -> tuple[DeployStep, ...]:
    return steps_of(steps, pushes, folder, SOURCE)


def image(*steps: Step, pushes: tuple[Step, ...] = (), folder: str = ".") -> ImageSpec:
    """What the one step of ours builds."""
    (found,) = [step.image for step in read(*steps, pushes=pushes, folder=folder) if step.image]
    return found


def is_prefects(*steps: Step, pushes: tuple[Step, ...] = (), folder: str = ".") -> bool:
    """Whether all of some steps are left to Prefect."""
    return all(step.image is None for step in read(*steps, pushes=pushes, folder=folder))


class TestBuild:
    def test_with_no_more_than_it_needs(self) -> None:
        (step,) = read({BUILD: {"image_name": "shop/etl"}})
        assert step == DeployStep(
            function=BUILD,
            inputs={"image_name": "shop/etl"},
            image=ImageSpec(repository="shop/etl", dockerfile="Dockerfile"),
        )
        assert step.image is not None and step.image.source == SOURCE

    def test_with_all_that_is_understood(self) -> None:
        found = image(
            build(
                dockerfile="docker/etl.Dockerfile",
                tag="dev",
                additional_tags=["v1", 2],
                path="code",
                buildargs={"B": 2, "A": "x"},
                target="run",
                platform="linux/amd64",
            )
        )
        assert found == ImageSpec(
            repository=NAME,
            dockerfile="code/docker/etl.Dockerfile",
            context="code",
            target="run",
            platform="linux/amd64",
            arguments=(("A", "x"), ("B", "2")),
        )
        assert found.aliases == ("dev", "v1", "2")

    @pytest.mark.parametrize("function", BUILD_STEPS)
    def test_under_each_of_its_names(self, function: str) -> None:
        assert image({function: {"image_name": NAME}}).repository == NAME

    def test_as_buildx_takes_it(self) -> None:
        inputs = {"build_backend": "buildx", "build_args": {"A": "x"}, "platforms": ["linux/arm64"], "push": True}
        found = image(build(**inputs))
        assert (found.arguments, found.platform, found.is_pushed) == ((("A", "x"),), "linux/arm64", True)

    @pytest.mark.parametrize("written", [False, None, "true"])
    def test_buildx_pushes_only_when_told_to(self, written: Any) -> None:
        assert not image(build(build_backend="buildx", push=written)).is_pushed

    def test_nothing_is_pushed_that_nobody_pushes(self) -> None:
        assert not image(build()).is_pushed

    def test_several_platforms_are_prefects(self) -> None:
        assert is_prefects(build(build_backend="buildx", platforms=["linux/amd64", "linux/arm64"], push=True))

    def test_an_argument_without_a_value_is_none(self) -> None:
        assert image(build(buildargs={"A": None, "B": ""})).arguments == (("B", ""),)

    @pytest.mark.parametrize("written", [None, {}, []])
    def test_no_arguments(self, written: Any) -> None:
        assert image(build(buildargs=written)).arguments == ()

    @pytest.mark.parametrize(
        "inputs",
        [
            {"image_name": None},
            {"image_name": 5},
            {"dockerfile": None},
            {"buildargs": ["A=1"]},
            {"path": None},
            {"path": "/elsewhere"},
            {"path": "../elsewhere"},
            {"path": ".."},
            {"path": "..", "dockerfile": "auto"},
            {"path": "https://github.com/shop/etl.git"},
            {"path": "git@github.com:shop/etl.git"},
            {"path": "{{ checkout.directory }}"},
            {"dockerfile": "../Dockerfile"},
            {"dockerfile": "/Dockerfile"},
            {"dockerfile": "{{ prepare.dockerfile }}"},
        ],
    )
    def test_what_has_no_counterpart_here_is_prefects(self, inputs: Mapping[str, Any]) -> None:
        assert is_prefects(build(**inputs))

    @pytest.mark.parametrize("inputs", [None, "text", [], {}])
    def test_no_inputs(self, inputs: Any) -> None:
        (step,) = read({BUILD: inputs})
        assert step == DeployStep(function=BUILD)

    def test_other_steps_are_prefects(self) -> None:
        written = {"id": "prepare", "script": "make"}
        assert read({SHELL: written}, folder="jobs") == (
            DeployStep(function=SHELL, id="prepare", inputs=written, folder="jobs"),
        )

    def test_they_stay_in_their_order(self) -> None:
        found = read({SHELL: {}, OWN: {}}, build(), {OWN: {}}, pushes=(push(), {SHELL: {}}))
        assert [step.function for step in found] == [SHELL, OWN, BUILD, OWN, SHELL]


# Every parameter of the two steps, and those of the docker SDK's build to which the first one hands what it does not
# know: what becomes of an image that has it.
OURS = {
    *("image_name", "dockerfile", "tag", "additional_tags", "buildargs", "target", "platform", "path"),
    *("ignore_cache", "persist_dockerfile", "dockerfile_output_path", "build_backend"),
    *("pull", "nocache", "rm", "forcerm", "quiet", "decode", "labels", "gzip", "timeout"),
}
PREFECTS = {
    *("fileobj", "custom_context", "encoding", "container_limits", "shmsize", "cache_from", "network_mode"),
    *("squash", "extra_hosts", "isolation", "use_config_proxy"),
}
PUSHED = {"image_name", "tag", "credentials", "additional_tags", "ignore_cache", "build_backend"}


def parameters_of(function: Any) -> set[str]:
    kinds = inspect.Parameter
    found = inspect.signature(function).parameters.values()
    return {each.name for each in found if each.kind is not kinds.VAR_KEYWORD and each.name != "self"}


class TestEveryInput:
    def test_the_steps_are_those_of_prefect_docker(self) -> None:
        module = prefect_docker_steps.__name__
        former = module.replace("deployments", "projects")  # as prefect-docker called it before
        assert (f"{module}.build_docker_image", f"{former}.build_docker_image") == BUILD_STEPS
        assert (f"{module}.push_docker_image", f"{former}.push_docker_image") == PUSH_STEPS

    def test_all_of_them_are_known_here(self) -> None:
        taken = parameters_of(prefect_docker_steps.build_docker_image) | parameters_of(BuildApiMixin.build)
        assert taken == OURS | PREFECTS
        assert parameters_of(prefect_docker_steps.push_docker_image) == PUSHED

    @pytest.mark.parametrize("name", sorted(OURS - {"image_name", "dockerfile", "platform", "path", "buildargs"}))
    def test_ours(self, name: str) -> None:
        assert image(build(**{name: "text"})).repository == NAME

    @pytest.mark.parametrize(
        "name", ["requires", "id", "load", "stream_progress_to", "build_args", "platforms", "push"]
    )
    def test_ours_beside_them(self, name: str) -> None:
        assert image(build(**{name: [] if name == "platforms" else {}})).repository == NAME

    @pytest.mark.parametrize("name", sorted(PREFECTS))
    def test_prefects(self, name: str) -> None:
        assert is_prefects(build(**{name: None}))

    @pytest.mark.parametrize("name", ["secrets", "ssh", "cache_to", "build_contexts", "anything"])
    def test_of_buildx_and_unknown_ones(self, name: str) -> None:
        assert is_prefects(build(build_backend="buildx", **{name: "x"}))

    @pytest.mark.parametrize("name", sorted(PUSHED - {"image_name", "tag", "credentials", "additional_tags"}))
    def test_of_a_push(self, name: str) -> None:
        assert image(build(), pushes=(push(**{name: "docker-py"}),)).is_pushed

    @pytest.mark.parametrize("name", ["requires", "id"])
    def test_of_any_step(self, name: str) -> None:
        assert image(build(), pushes=(push(**{name: "text"}),)).is_pushed

    def test_an_unknown_one_of_a_push(self) -> None:
        found = read(build(), pushes=(push(anything=1),))
        assert [(step.function, step.image) for step in found] == [(BUILD, None), (PUSH, None)]


class TestFolders:
    @pytest.mark.parametrize(
        ("folder", "inputs", "context", "dockerfile"),
        [
            (".", {}, "", "Dockerfile"),
            (".", {"path": "."}, "", "Dockerfile"),
            (".", {"path": "./code/"}, "code", "code/Dockerfile"),
            (".", {"dockerfile": "docker/../Dockerfile"}, "", "Dockerfile"),
            ("jobs", {}, "jobs", "jobs/Dockerfile"),
            ("jobs", {"dockerfile": "docker/Dockerfile"}, "jobs", "jobs/docker/Dockerfile"),
            ("jobs", {"path": ".."}, "", "Dockerfile"),
            ("jobs", {"path": "..", "dockerfile": "jobs/Dockerfile"}, "", "jobs/Dockerfile"),
            ("jobs", {"dockerfile": "../Dockerfile"}, "jobs", "Dockerfile"),
            ("jobs", {"path": "code", "build_backend": "buildx"}, "jobs/code", "jobs/Dockerfile"),
            ("jobs", {"path": "code", "build_backend": "docker-py"}, "jobs/code", "jobs/code/Dockerfile"),
            ("jobs", {"dockerfile": "auto"}, "jobs", "auto"),
            ("jobs", {"dockerfile": "auto", "path": "code"}, "jobs/code", "auto"),
        ],
    )
    def test_start_where_the_step_runs(
        self, folder: str, inputs: Mapping[str, Any], context: str, dockerfile: str
    ) -> None:
        found = image(build(**inputs), folder=folder)
        assert (found.context, found.dockerfile) == (context, dockerfile)

    def test_out_of_the_repository(self) -> None:
        assert is_prefects(build(path="../.."), folder="jobs")


class TestWhatWaitsForOtherSteps:
    """An image that is made of what another step gives can only be built when that one has run."""

    PREPARE: Step = {OWN: {"id": "prepare"}}  # noqa: RUF012

    @pytest.mark.parametrize(
        "inputs",
        [
            {"buildargs": {"VERSION": "{{ prepare.version }}"}},
            {"buildargs": {"VERSION": "1.{{ version }}"}},
            {"image_name": "shop/{{ prepare.name }}"},
            {"target": "{{ prepare.target }}"},
            {"platform": "{{ prepare.platform }}"},
        ],
    )
    def test_is_prefects(self, inputs: Mapping[str, Any]) -> None:
        assert is_prefects(self.PREPARE, build(**inputs))
        assert not is_prefects(build(**inputs), self.PREPARE)

    def test_its_tags_may_wait(self) -> None:
        found = image(self.PREPARE, build(tag="{{ prepare.tag }}", additional_tags=["{{ prepare.other }}"]))
        assert found.aliases == ("{{ prepare.tag }}", "{{ prepare.other }}")

    @pytest.mark.parametrize(
        "text",
        [
            "{{ $NOT_SET }}",
            "{{ prefect.variables.version }}",
            "{{ prefect.blocks.secret.token }}",
            "{{ else.version }}",
        ],
    )
    def test_what_comes_from_elsewhere_does_not(self, text: str) -> None:
        assert image(self.PREPARE, build(buildargs={"VERSION": text})).arguments == (("VERSION", text),)

    def test_nor_what_the_environment_has(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VERSION", "7")
        assert not is_prefects(self.PREPARE, build(buildargs={"VERSION": "{{ VERSION }}"}))

    def test_nor_what_a_known_step_does_not_give(self) -> None:
        assert is_prefects({SHELL: {"id": "sh", "script": "x"}}, build(buildargs={"V": "{{ stdout }}"}))
        assert not is_prefects({SHELL: {"id": "sh", "script": "x"}}, build(buildargs={"V": "{{ version }}"}))

    def test_one_that_waits_for_another_image(self) -> None:
        base = {BUILD: {"id": "base", "image_name": "shop/base"}}
        found = read(base, build(buildargs={"BASE": "{{ base.image }}"}))
        assert [step.image is None for step in found] == [False, True]


class TestPush:
    @pytest.mark.parametrize(
        "name",
        [
            *("{{ build-image.image_name }}", "{{build-image.image_name}}", "{{ image_name }}", NAME),
            *("{{ build-image.image }}", "{{ image }}"),
        ],
    )
    def test_is_part_of_the_image_that_it_names(self, name: str) -> None:
        (step,) = read(build(tag="dev"), pushes=(push(image_name=name),))
        assert step.image is not None and (step.image.is_pushed, step.image.aliases) == (True, ("dev",))

    @pytest.mark.parametrize("function", PUSH_STEPS)
    def test_under_each_of_its_names(self, function: str) -> None:
        assert image(build(), pushes=({function: {"image_name": NAME}},)).is_pushed

    @pytest.mark.parametrize("name", ["other/etl", "{{ other.image_name }}", "{{ build-image.tag }}", None])
    def test_of_something_else_is_prefects(self, name: Any) -> None:
        found = read(build(), pushes=(push(image_name=name),))
        assert [step.function for step in found] == [BUILD, PUSH]
        assert found[0].image is not None and not found[0].image.is_pushed

    def test_chooses_among_several(self) -> None:
        first, second = build(), {BUILD: {"id": "second", "image_name": "shop/second"}}

        def pushed(name: str) -> list[bool]:
            steps = read(first, second, pushes=(push(image_name=name),))
            return [step.image.is_pushed for step in steps if step.image]

        assert pushed("{{ build-image.image_name }}") == [True, False]
        assert pushed("{{ second.image_name }}") == [False, True]
        assert pushed("{{ image_name }}") == [False, True]
        assert pushed("shop/second") == [False, True]
        assert pushed(NAME) == [True, False]

    def test_one_after_a_step_that_may_give_another_name(self) -> None:
        found = read(build(), {OWN: {}}, pushes=(push(image_name="{{ image_name }}"),))
        assert [step.function for step in found] == [BUILD, OWN, PUSH]

    def test_its_own_tags_are_added(self) -> None:
        found = image(build(tag="dev"), pushes=(push(tag="v1", additional_tags=["dev", "v2"]),))
        assert found.aliases == ("dev", "v1", "v2")

    @pytest.mark.parametrize(
        "inputs",
        [
            {"tag": "{{ build-image.tag }}", "additional_tags": "{{ build-image.additional_tags }}"},
            {"tag": "{{ tag }}", "additional_tags": "{{ additional_tags }}"},
            {"tag": None, "additional_tags": ["{{ build-image.tag }}"]},
            {"tag": None, "additional_tags": None},
        ],
    )
    def test_those_of_the_build_are_there_already(self, inputs: Mapping[str, Any]) -> None:
        assert image(build(tag="dev"), pushes=(push(**inputs),)).aliases == ("dev",)

    def test_with_a_block_for_the_user(self) -> None:
        found = image(build(), pushes=(push(credentials=CREDENTIALS),))
        assert found.credentials == CREDENTIALS

    @pytest.mark.parametrize("written", [None, ""])
    def test_without_one(self, written: Any) -> None:
        assert image(build(), pushes=(push(credentials=written),)).credentials == ""

    @pytest.mark.parametrize(
        "written",
        [
            {"username": "a", "password": "{{ $PASSWORD }}"},
            "{{ login.user }}",
            "a:b",
            f"x{CREDENTIALS}",
            f"{CREDENTIALS}{{{{ x }}}}",
        ],
    )
    def test_a_user_that_is_no_block_leaves_image_and_push_to_prefect(self, written: Any) -> None:
        first = push()
        found = read(build(), pushes=(first, push(credentials=written)))
        assert [(step.function, step.image) for step in found] == [(BUILD, None), (PUSH, None), (PUSH, None)]

    @pytest.mark.parametrize(
        "inputs", [{"tag": "{{ own.commit }}"}, {"tag": None, "additional_tags": ["x-{{ commit }}"]}]
    )
    def test_a_tag_that_a_step_behind_the_build_gives_leaves_both_to_prefect(self, inputs: Mapping[str, Any]) -> None:
        own = {OWN: {"id": "own"}}
        assert is_prefects(build(), own, pushes=(push(**inputs),))
        assert not is_prefects(own, build(), pushes=(push(**inputs),))

    def test_twice(self) -> None:
        pushes = (push(credentials=CREDENTIALS, tag="a"), push(tag="b"))
        found = image(build(), pushes=pushes)
        assert (found.aliases, found.credentials) == (("a", "b"), CREDENTIALS)

    def test_of_an_image_that_prefect_builds_is_prefects(self) -> None:
        assert is_prefects(build(cache_from=["x"]), pushes=(push(),))


class TestOutputs:
    IMAGE = DeployStep(function=BUILD, id="build-image", image=image_spec())
    OTHER = DeployStep(function=BUILD, id="other", image=image_spec(repository="other"))
    OWN = DeployStep(function=OWN, id="own")
    SHELL = DeployStep(function=SHELL, id="sh")
    PUSH = DeployStep(function=PUSH, id="push")

    @pytest.mark.parametrize("output", IMAGE_OUTPUTS)
    def test_of_an_image(self, output: str) -> None:
        steps = (self.IMAGE, self.OTHER)
        assert output_of(f"build-image.{output}", steps) == (self.IMAGE, output)
        assert output_of(output, steps) == (self.OTHER, output)

    @pytest.mark.parametrize(
        "name", ["build-image.digest", "digest", "build-image", "nowhere.image", "$image", "$x.image"]
    )
    def test_that_an_image_does_not_give(self, name: str) -> None:
        assert output_of(name, (self.IMAGE,)) is None

    def test_that_prefects_step_gives_is_what_prefect_gives(self) -> None:
        found = prefect_docker_steps.BuildDockerImageResult.__annotations__
        assert set(found) == set(IMAGE_OUTPUTS)

    def test_a_step_of_ones_own_may_give_anything(self) -> None:
        for name in ("own.a", "own.a.b", "a", "image"):
            assert output_of(name, (self.IMAGE, self.OWN)) == (self.OWN, name.removeprefix("own."))

    def test_but_nothing_from_elsewhere(self) -> None:
        for name in ("$a", "prefect.blocks.secret.x", "ctx.flow_run.name", "event.name", "image.a"):
            assert output_of(name, (self.OWN,)) is None

    def test_of_a_step_that_is_known(self) -> None:
        steps = (self.IMAGE, self.SHELL)
        assert output_of("sh.stdout", steps) == (self.SHELL, "stdout")
        assert output_of("stderr", steps) == (self.SHELL, "stderr")
        assert output_of("image", steps) == (self.IMAGE, "image")
        assert output_of("sh.image", steps) is None

    def test_a_push_says_less_than_the_build_before_it(self) -> None:
        assert output_of("image", (self.IMAGE, self.PUSH)) == (self.IMAGE, "image")
        assert output_of("push.image", (self.IMAGE, self.PUSH)) == (self.PUSH, "image")
        assert output_of("image", (self.PUSH,)) == (self.PUSH, "image")
        assert output_of("image_id", (self.PUSH,)) is None

    def test_without_steps_there_are_none(self) -> None:
        assert output_of("image", ()) is None


def test_the_step_of_a_template() -> None:
    step = implied_step(image_spec())
    assert step == DeployStep(function=TEMPLATE_STEP, image=image_spec())
    assert output_of("image", (step,)) == (step, "image")
