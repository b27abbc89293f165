"""What build and push steps give, in the deployments that speak of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model import DeploymentConfig, DeployStep, ImageSpec, PlannedImage
from orchestrator.step_outputs import (
    as_live,
    images_of,
    needs,
    open_outputs,
    output_values,
    with_outputs,
    with_pins,
    with_planned_images,
)
from tests.unit.builders import DIGEST, INPUT_DIGEST, deployment, image_spec, planned_image

BUILD = "prefect_docker.deployments.steps.build_docker_image"
SPEC = image_spec(aliases=("dev",))
IMAGE = DeployStep(function=BUILD, id="build-image", image=SPEC)
OWN = DeployStep(function="shop.steps.prepare", id="own")
NAME, TAG = f"{SPEC.repository}:{INPUT_DIGEST[:12]}", INPUT_DIGEST[:12]
PINNED = f"{SPEC.repository}@{DIGEST}"


def asked(*steps: DeployStep, **fields: Any) -> DeploymentConfig:
    return deployment(steps=steps, **fields)


def opened(*steps: DeployStep, **fields: Any) -> dict[str, tuple[str, str]]:
    """The ids of the steps and their outputs that some fields wait for."""
    found = open_outputs(asked(*steps, **fields))
    return {whole: (step.id, output) for whole, (step, output) in found.items()}


class TestOpenOutputs:
    @pytest.mark.parametrize(
        "fields",
        [
            {"version": "{{ build-image.tag }}"},
            {"description": "Runs from {{ build-image.tag }}."},
            {"tags": ("a", "{{ build-image.tag }}")},
            {"parameters": {"a": [{"b": "{{ build-image.tag }}"}]}},
            {"job_variables": {"env": {"TAG": "{{ build-image.tag }}"}}},
            {"pull_steps": ({"x": {"y": "{{ build-image.tag }}"}},)},
            {"triggers": ({"parameters": {"tag": "{{ build-image.tag }}"}},)},
        ],
    )
    def test_in_every_field_that_may_wait(self, fields: dict[str, Any]) -> None:
        assert opened(IMAGE, **fields) == {"{{ build-image.tag }}": ("build-image", "tag")}

    @pytest.mark.parametrize(
        "fields", [{"deployment_name": "{{ tag }}"}, {"work_pool": "{{ tag }}"}, {"path": "{{ tag }}"}]
    )
    def test_in_no_other(self, fields: dict[str, Any]) -> None:
        assert open_outputs(replace(asked(IMAGE), **fields)) == {}

    def test_as_they_are_written(self) -> None:
        text = "{{tag}} {{ tag }} {{ build-image.image }} {{ $HOME }} {{ nowhere.tag }}"
        assert opened(IMAGE, version=text) == {
            "{{tag}}": ("build-image", "tag"),
            "{{ tag }}": ("build-image", "tag"),
            "{{ build-image.image }}": ("build-image", "image"),
        }

    def test_a_step_of_ones_own_may_give_anything(self) -> None:
        assert opened(OWN, version="{{ commit }}") == {"{{ commit }}": ("own", "commit")}

    def test_without_steps_nothing_is_open(self) -> None:
        assert opened(version="{{ tag }}") == {}

    @pytest.mark.parametrize("field", ["pull_steps", "triggers"])
    def test_names_of_these_fields_own(self, field: str) -> None:
        """`{{ directory }}` is what a pull step gives, unless a build step surely gives it."""
        assert opened(OWN, **{field: ({"x": "{{ directory }} {{ image }}"},)}) == {}
        assert opened(OWN, **{field: ({"x": "{{ own.directory }}"},)}) == {"{{ own.directory }}": ("own", "directory")}
        assert opened(IMAGE, **{field: ({"x": "{{ image }}"},)}) == {"{{ image }}": ("build-image", "image")}
        assert opened(IMAGE, **{field: ({"x": "{{ event.name }} {{ clone.directory }}"},)}) == {}


class TestWithOutputs:
    def test_all_fields_are_filled(self) -> None:
        text = "{{ own.x }}"
        config = asked(
            OWN,
            version=text,
            description=f"a {text}",
            parameters={"a": text},
            job_variables={"b": [text]},
            pull_steps=({"c": text},),
            triggers=({"d": text},),
        )
        found = with_outputs(config, {text: "1"})
        assert (found.version, found.description) == ("1", "a 1")
        assert (found.parameters, found.job_variables) == ({"a": "1"}, {"b": ["1"]})
        assert (found.pull_steps, found.triggers) == (({"c": "1"},), ({"d": "1"},))

    def test_a_whole_text_keeps_the_type_of_its_value(self) -> None:
        found = with_outputs(asked(OWN, parameters={"a": "{{ own.x }}", "b": "{{ own.x }}!"}), {"{{ own.x }}": 5})
        assert found.parameters == {"a": 5, "b": "5!"}

    def test_where_a_text_is_needed_it_is_one(self) -> None:
        found = with_outputs(asked(OWN, version="{{ x }}", description="{{ x }}", tags=("{{ x }}",)), {"{{ x }}": 5})
        assert (found.version, found.description, found.tags) == ("5", "5", ("5",))

    def test_a_list_of_tags_gives_its_members_each_once(self) -> None:
        values = {"{{ own.tags }}": ["b", "c", " ", 5], "{{ own.none }}": ""}
        found = with_outputs(asked(OWN, tags=("a", "{{ own.tags }}", "{{ own.none }}", "b")), values)
        assert found.tags == ("a", "b", "c", "5")

    def test_what_is_not_given_stays(self) -> None:
        config = asked(OWN, version="{{ own.x }}", tags=("a", "{{ own.y }}"), pull_steps=({"a": "{{ b }}"},))
        assert with_outputs(config, {}) == config


class TestAsLive:
    """What only a step can tell is as the server has it; all else is as it was asked for."""

    def seen(self, wanted: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
        found = as_live(asked(OWN, **wanted), deployment(**there))
        return {name: getattr(found, name) for name in wanted}

    @pytest.mark.parametrize(
        ("field", "wanted", "there"),
        [
            ("version", "{{ own.x }}", "7"),
            ("description", "Built at {{ own.x }}.", "Built at two\nlines."),
            ("tags", ("a", "{{ own.x }}"), ("a", "7")),
            ("tags", ("a", "{{ own.x }}", "b"), ("a", "7", "8", "b")),
            ("tags", ("a", "{{ own.x }}", "b"), ("a", "b")),
            ("parameters", {"a": "{{ own.x }}"}, {"a": [7]}),
            ("parameters", {"a": {"b": ["{{ own.x }}", 1]}}, {"a": {"b": [7, 1]}}),
            ("job_variables", {"image": "r/{{ own.name }}:{{ own.tag }}"}, {"image": "r/etl:7"}),
            ("pull_steps", ({"f": {"x": "{{ own.x }}"}},), ({"f": {"x": "7"}},)),
            ("triggers", ({"name": "a", "match": {"x": "{{ own.x }}"}},), ({"name": "a", "match": {"x": "7"}},)),
        ],
    )
    def test_is_taken_from_there(self, field: str, wanted: Any, there: Any) -> None:
        assert self.seen({field: wanted}, {field: there}) == {field: there}

    @pytest.mark.parametrize(
        ("field", "wanted", "there"),
        [
            ("description", "Built at {{ own.x }}.", "Made at noon."),
            ("job_variables", {"image": "r/etl:{{ own.tag }}"}, {"image": "other/etl:7"}),
            ("job_variables", {"image": "r/etl:{{ own.tag }}"}, {}),
            ("job_variables", {"image": "r/etl:{{ own.tag }}"}, {"image": 7}),
            ("tags", ("a", "{{ own.x }}"), ("7",)),
            ("tags", ("a", "{{ own.x }}", "a"), ("a",)),
            ("tags", ("{{ own.x }}", "{{ own.y }}"), ("a", "7", "8")),
            ("parameters", {"a": ["{{ own.x }}"]}, {"a": "7"}),
            ("parameters", {"a": {"b": "{{ own.x }}"}}, {"a": 7}),
        ],
    )
    def test_is_left_open_where_there_is_none_that_fits(self, field: str, wanted: Any, there: Any) -> None:
        assert self.seen({field: wanted}, {field: there}) == {field: wanted}

    def test_other_texts_stay(self) -> None:
        wanted = {"version": "{{ own.x }}", "description": "new", "parameters": {"a": "{{ ctx.x }}", "b": 1}}
        found = self.seen(wanted, {"version": "7", "description": "old", "parameters": {"a": "x", "b": 2, "c": 3}})
        assert found == {**wanted, "version": "7"}


class TestImagesOf:
    @pytest.mark.parametrize(
        "text", ["{{ build-image.image }}", "{{ image }}", "{{ build-image.tag }}", "a{{image_id}}"]
    )
    def test_those_whose_outputs_it_speaks_of(self, text: str) -> None:
        assert images_of(asked(IMAGE, job_variables={"image": text})) == (SPEC,)
        assert images_of(asked(IMAGE, description=text)) == (SPEC,)

    def test_the_one_that_it_names_by_a_tag_of_its_step(self) -> None:
        assert images_of(asked(IMAGE, job_variables={"image": f"{SPEC.repository}:dev"})) == (SPEC,)

    @pytest.mark.parametrize(
        "image", [SPEC.repository, f"{SPEC.repository}:v1", "dev", "{{ ctx.x }}", None, {"tag": "dev"}]
    )
    def test_no_other(self, image: Any) -> None:
        assert images_of(asked(IMAGE, job_variables={"image": image})) == ()

    def test_what_prefect_builds_is_none_of_ours(self) -> None:
        assert images_of(asked(OWN, job_variables={"image": "{{ own.image }}"})) == ()

    def test_each_once_in_the_order_of_the_text(self) -> None:
        other = DeployStep(function=BUILD, id="other", image=image_spec(repository="other"))
        text = "{{ other.tag }} {{ build-image.tag }} {{ other.image }}"
        assert images_of(asked(IMAGE, other, description=text)) == (other.image, SPEC)

    @pytest.mark.parametrize("image", ["{{ image }}", f"{SPEC.repository}:dev"])
    def test_the_one_that_runs_start_from_comes_first(self, image: str) -> None:
        other = DeployStep(function=BUILD, id="other", image=image_spec(repository="other"))
        variables = {"env": {"OTHER": "{{ other.tag }}"}, "image": image}
        config = asked(other, IMAGE, parameters={"other": "{{ other.image }}"}, job_variables=variables)
        assert images_of(config) == (SPEC, other.image)

    def test_what_nothing_speaks_of_is_not_needed(self) -> None:
        assert images_of(asked(IMAGE)) == ()


class TestNeeds:
    def test_an_image_of_several_deployments_is_one_with_all_tags_and_flows(self) -> None:
        def one(**fields: Any) -> DeploymentConfig:
            return asked(replace(IMAGE, image=image_spec(**fields)), version="{{ tag }}")

        (found,) = needs(
            [
                one(aliases=("a", "b"), closures=(("etl", "1"),)),
                one(aliases=("b", "c"), closures=(("report", "2"),)),
                one(aliases=("a",), closures=(("etl", "1"),)),
            ]
        )
        assert found.aliases == ("a", "b", "c")
        assert found.closures == (("etl", "1"), ("report", "2"))

    def test_one_that_any_of_them_pushes_is_pushed(self) -> None:
        here, away = image_spec(is_pushed=False), image_spec(credentials="{{ prefect.blocks.x.y }}")
        for specs in ((here, away), (away, here)):
            (found,) = needs([asked(replace(IMAGE, image=spec), version="{{ tag }}") for spec in specs])
            assert (found.is_pushed, found.credentials) == (True, "{{ prefect.blocks.x.y }}")

    @pytest.mark.parametrize(
        "other",
        [
            {"repository": "x"},
            {"dockerfile": "x"},
            {"dockerfile_text": "FROM x"},
            {"context": "x"},
            {"target": "x"},
            {"platform": "x"},
            {"arguments": (("A", "x"),)},
            {"secret_arguments": (("A", "x"),)},
            {"takes_whole_context": True},
        ],
    )
    def test_what_is_built_otherwise_is_another_one(self, other: dict[str, Any]) -> None:
        specs = [image_spec(), image_spec(**other)]
        assert list(needs([asked(replace(IMAGE, image=spec), version="{{ tag }}") for spec in specs])) == specs


def named(image: PlannedImage | None = None, *steps: DeployStep, **fields: Any) -> DeploymentConfig:
    """A deployment with its image named."""
    image = image or planned_image(SPEC)
    return with_planned_images(asked(*(steps or (IMAGE,)), **fields), {image.spec: image})


class TestWithPlannedImages:
    @pytest.mark.parametrize(("pinned", "reference"), [("", NAME), (PINNED, PINNED), ("sha256:aa", "sha256:aa")])
    @pytest.mark.parametrize(
        "text", ["{{ build-image.image }}", "{{ image }}", "{{ image_id }}", f"{SPEC.repository}:dev"]
    )
    def test_an_image_is_pinned_where_that_is_known(self, text: str, pinned: str, reference: str) -> None:
        found = named(planned_image(SPEC, pinned=pinned), job_variables={"image": text, "env": {"A": "1"}})
        assert found.job_variables == {"image": reference, "env": {"A": "1"}}
        assert found.images == ((NAME, reference),)

    def test_the_other_outputs(self) -> None:
        text = "{{ build-image.image_name }}|{{ build-image.tag }}|{{ build-image.additional_tags }}"
        found = named(planned_image(SPEC, pinned=PINNED), parameters={"a": text.split("|")})
        assert found.parameters == {"a": [SPEC.repository, TAG, ["dev"]]}

    def test_the_whole_of_an_image_in_every_field_that_is_pinned(self) -> None:
        text = "{{ image }}"
        fields = {"parameters": {"a": [text]}, "job_variables": {"b": {"c": text}}, "pull_steps": ({"d": text},)}
        found = named(planned_image(SPEC, pinned=PINNED), **fields)
        assert (found.parameters, found.job_variables) == ({"a": [PINNED]}, {"b": {"c": PINNED}})
        assert found.pull_steps == ({"d": PINNED},)

    def test_a_text_about_it_has_its_tag(self) -> None:
        found = named(planned_image(SPEC, pinned=PINNED), description="From {{ image }}.")
        assert found.description == f"From {NAME}."

    def test_the_version_of_what_follows_the_code_is_the_tag(self) -> None:
        assert named(version="1", follows_code=True, description="{{ tag }}").version == TAG
        assert named(version="1", follows_code=False, description="{{ tag }}").version == "1"

    def test_and_of_the_image_that_runs_start_from(self) -> None:
        other = DeployStep(function=BUILD, id="other", image=image_spec(repository="other"))
        fields = {"parameters": {"a": "{{ other.tag }}"}, "job_variables": {"image": "{{ build-image.image }}"}}
        config = asked(IMAGE, other, follows_code=True, **fields)
        planned = {SPEC: planned_image(SPEC), other.image: planned_image(other.image, input_digest="c" * 64)}
        assert with_planned_images(config, planned).version == TAG

    def test_an_image_of_which_nothing_is_known_changes_no_version(self) -> None:
        unknown = planned_image(SPEC, action="unknown", input_digest="")
        found = named(unknown, version="1", follows_code=True, job_variables={"image": "{{ image }}"})
        assert (found.version, found.job_variables["image"]) == ("1", f"{SPEC.repository}:unknown")

    def test_nor_does_another_one_in_its_place(self) -> None:
        other = DeployStep(function=BUILD, id="other", image=image_spec(repository="other"))
        fields = {"parameters": {"a": "{{ other.tag }}"}, "job_variables": {"image": "{{ build-image.image }}"}}
        planned = {SPEC: planned_image(SPEC, input_digest=""), other.image: planned_image(other.image)}
        config = asked(IMAGE, other, follows_code=True, version="1", **fields)
        assert with_planned_images(config, planned).version == "1"

    def test_outputs_of_other_steps_stay_open(self) -> None:
        found = named(None, OWN, IMAGE, version="{{ own.x }}", description="{{ tag }} {{ own.y }}")
        assert (found.version, found.description) == ("{{ own.x }}", f"{TAG} {{{{ own.y }}}}")
        assert set(open_outputs(found)) == {"{{ own.x }}", "{{ own.y }}"}

    def test_what_needs_no_image_stays_as_it_is(self) -> None:
        config = asked(IMAGE, OWN, version="{{ own.x }}", follows_code=True)
        assert with_planned_images(config, {SPEC: planned_image(SPEC)}) is config

    def test_one_that_was_not_decided_stays_open(self) -> None:
        config = asked(IMAGE, job_variables={"image": "{{ image }}"})
        assert with_planned_images(config, {}) is config

    def test_beside_one_that_was(self) -> None:
        other = DeployStep(function=BUILD, id="other", image=image_spec(repository="other"))
        found = named(None, IMAGE, other, parameters={"a": "{{ build-image.tag }}", "b": "{{ other.tag }}"})
        assert found.parameters == {"a": TAG, "b": "{{ other.tag }}"}

    def test_an_image_that_is_no_text(self) -> None:
        written = {"repository": "x", "tag": "{{ tag }}"}
        assert named(job_variables={"image": written}).job_variables["image"] == {"repository": "x", "tag": TAG}

    def test_several_images(self) -> None:
        other = image_spec(repository="r/other")
        step = DeployStep(function=BUILD, id="other", image=other)
        config = asked(IMAGE, step, job_variables={"image": "{{ build-image.image }}"}, parameters={"a": "{{ image }}"})
        planned = {SPEC: planned_image(SPEC, pinned=PINNED), other: planned_image(other, input_digest="c" * 64)}
        found = with_planned_images(config, planned)
        assert (found.job_variables["image"], found.parameters["a"]) == (PINNED, f"r/other:{'c' * 12}")
        assert dict(found.images) == {NAME: PINNED, f"r/other:{'c' * 12}": f"r/other:{'c' * 12}"}


class TestWithPins:
    CONFIG = deployment(
        images=((NAME, NAME), ("other:1", "other@sha256:bb")),
        job_variables={"image": NAME, "env": {"A": f"{NAME} ", "B": "other@sha256:bb"}, NAME: 1},
        parameters={"a": [{"b": NAME}, 1]},
        pull_steps=({"x": NAME},),
        description=NAME,
        version=NAME,
        tags=(NAME,),
    )

    def test_whole_texts_are_replaced(self) -> None:
        found = with_pins(self.CONFIG, {NAME: PINNED})
        assert found.job_variables == {"image": PINNED, "env": {"A": f"{NAME} ", "B": "other@sha256:bb"}, NAME: 1}
        assert (found.parameters, found.pull_steps) == ({"a": [{"b": PINNED}, 1]}, ({"x": PINNED},))
        assert (found.description, found.version, found.tags) == (NAME, NAME, (NAME,))
        assert found.images == ((NAME, PINNED), ("other:1", "other@sha256:bb"))

    def test_a_pin_may_be_taken_back(self) -> None:
        assert with_pins(with_pins(self.CONFIG, {NAME: PINNED}), {NAME: NAME}) == self.CONFIG
        assert with_pins(self.CONFIG, {"other:1": "other:1"}).job_variables["env"]["B"] == "other:1"

    @pytest.mark.parametrize("pins", [{}, {NAME: NAME}, {"unknown:1": PINNED}])
    def test_where_nothing_changes_it_is_the_same_value(self, pins: dict[str, str]) -> None:
        assert with_pins(self.CONFIG, pins) is self.CONFIG


def test_all_that_the_step_of_an_image_gives() -> None:
    assert output_values(planned_image(SPEC, pinned=PINNED)) == {
        "image_name": SPEC.repository,
        "tag": TAG,
        "image": PINNED,
        "image_id": NAME,
        "additional_tags": ["dev"],
    }


def test_secret_arguments_are_in_no_text_of_an_image() -> None:
    spec = ImageSpec(repository="r", dockerfile="D", secret_arguments=(("TOKEN", "hunter2"),))
    config = asked(DeployStep(function=BUILD, image=spec), version="{{ tag }}")
    for each in (spec, planned_image(spec), config, needs([config])):
        assert "hunter2" not in repr(each)
