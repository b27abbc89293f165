"""What build and push steps give, put into the deployments that speak of it.

Pure functions of values. An image is spoken of by the outputs of its step, and also by the tag that its step names
(`image: shop/etl:dev`): both become the image that is pinned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.deploy_steps import IMAGE_OUTPUTS, output_of
from orchestrator.model import DeploymentConfig, DeployStep, ImageSpec, PlannedImage
from orchestrator.placeholders import filled, names_in, texts_of

_PLAIN = ("version", "description", "tags", "parameters", "job_variables")
_WITH_NAMES_OF_THEIR_OWN = ("pull_steps", "triggers")  # `{{ directory }}` there is what a pull step gives
_FIELDS = (*_PLAIN, *_WITH_NAMES_OF_THEIR_OWN)


def open_outputs(config: DeploymentConfig) -> dict[str, tuple[DeployStep, str]]:
    """The placeholders of a deployment that its steps fill, as they are written: the step, and which of its outputs."""
    if not config.steps:
        return {}
    return {
        whole: found
        for name, field in _texts(config)
        for whole, inner in names_in(field)
        if (found := output_of(inner, config.steps)) and _may_mean(name, inner, found[0])
    }


def _texts(config: DeploymentConfig) -> Iterator[tuple[str, str]]:
    for name in _FIELDS:
        yield from ((name, text) for _, text in texts_of(getattr(config, name)))


def _may_mean(field: str, inner: str, step: DeployStep) -> bool:
    return field in _PLAIN or "." in inner or step.image is not None


def with_outputs(config: DeploymentConfig, values: Mapping[str, Any]) -> DeploymentConfig:
    """A deployment with what its steps gave; `values` is by the placeholder as it is written."""
    fields = {name: filled(getattr(config, name), values) for name in _FIELDS}
    tags = [member for tag in fields["tags"] for member in (tag if isinstance(tag, list) else [tag])]
    return replace(
        config,
        version=str(fields["version"]),
        description=str(fields["description"]),
        tags=tuple(dict.fromkeys(str(tag) for tag in tags if str(tag).strip())),
        parameters=fields["parameters"],
        job_variables=fields["job_variables"],
        pull_steps=tuple(fields["pull_steps"]),
        triggers=tuple(fields["triggers"]),
    )


def as_live(config: DeploymentConfig, live: DeploymentConfig) -> DeploymentConfig:
    """A deployment in which what only a step can give is as the server has it."""
    names = open_outputs(config)
    values: dict[str, Any] = {name: _as_live(getattr(config, name), getattr(live, name), names) for name in _FIELDS}
    values["tags"] = _list_as_live(config.tags, live.tags, names) or values["tags"]
    fields: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
    return replace(config, **fields)


def _as_live(value: Any, live: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return live if _may_have_given(value, live, names) else value
    if isinstance(value, Mapping):
        there = live if isinstance(live, Mapping) else {}
        return {key: _as_live(inner, there.get(key), names) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        same = isinstance(live, list | tuple) and len(live) == len(value)
        return [_as_live(inner, live[index] if same else None, names) for index, inner in enumerate(value)]
    return value


def _list_as_live(tags: Sequence[str], live: Sequence[str], names: Mapping[str, Any]) -> list[str] | None:
    """The tags that the server has, if they are these with the list of one step among them; else None."""
    opened = [index for index, tag in enumerate(tags) if tag in names]
    if len(opened) != 1:
        return None
    before, behind = tags[: opened[0]], tags[opened[0] + 1 :]
    is_same = [*live[: len(before)], *live[len(live) - len(behind) :]] == [*before, *behind]
    return list(live) if is_same and len(live) >= len(before) + len(behind) else None


def _may_have_given(text: str, live: Any, names: Mapping[str, Any]) -> bool:
    """Whether a text gives what the server has, if its open placeholders stand for the right thing."""
    opened = [whole for whole, _ in names_in(text) if whole in names]
    if live is None:
        return False
    pattern = re.escape(text)
    for whole in opened:
        pattern = pattern.replace(re.escape(whole), "(?s:.*)")
    return text in opened or (isinstance(live, str) and re.fullmatch(pattern, live) is not None)


# ---------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------


def images_of(config: DeploymentConfig) -> tuple[ImageSpec, ...]:
    """The images of ours that a deployment speaks of, and so needs; what its steps would build besides is not built.

    The one that its runs start from comes first.
    """
    outputs = open_outputs(config)
    image = config.job_variables.get("image")
    named = [step.image for step in config.steps if step.image and image in _aliases(step.image)]
    started = [
        outputs[whole][0].image for _, text in texts_of(image) for whole, _ in names_in(text) if whole in outputs
    ]
    spoken_of = [step.image for step, _ in outputs.values()]
    return tuple(dict.fromkeys(each for each in (*named, *started, *spoken_of) if each is not None))


def _aliases(spec: ImageSpec) -> tuple[str, ...]:
    """How people name an image whose step says which tags it gets."""
    return tuple(f"{spec.repository}:{tag}" for tag in spec.aliases)


def with_planned_images(config: DeploymentConfig, planned: Mapping[ImageSpec, PlannedImage]) -> DeploymentConfig:
    """A deployment that names its images as far as they are known: pinned, or by the tag under which they will be."""
    mine = [planned[spec] for spec in images_of(config) if spec in planned]
    if not mine:
        return config
    outputs = open_outputs(config)
    values = {
        whole: _output(planned[step.image], output)
        for whole, (step, output) in outputs.items()
        if step.image in planned and step.image is not None
    }
    known = with_outputs(config, values)
    named = {alias: image.reference for image in mine for alias in _aliases(image.spec)}
    written = known.job_variables.get("image")
    reference = named.get(written) if isinstance(written, str) else None
    variables = {**known.job_variables, "image": reference} if reference else known.job_variables
    known = replace(
        known,
        job_variables=variables,
        version=mine[0].tag if known.follows_code and mine[0].tag else known.version,
        images=tuple((image.name, image.name) for image in mine),
    )
    return with_pins(known, {image.name: image.reference for image in mine})


def _output(image: PlannedImage, output: str) -> Any:
    spec = image.spec
    values = {"image_name": spec.repository, "tag": image.tag, "additional_tags": list(spec.aliases)}
    return values.get(output, image.name)  # `image`, and `image_id`: pinned where the name is


def output_values(image: PlannedImage) -> dict[str, Any]:
    """All that the step of an image gives, for steps that come after it."""
    return {**{name: _output(image, name) for name in IMAGE_OUTPUTS}, "image": image.reference}


def with_pins(config: DeploymentConfig, pins: Mapping[str, str]) -> DeploymentConfig:
    """A deployment with other references to its images.

    Args:
        config: the deployment.
        pins: what is to stand for an image, by its name `repository:tag`.
    """
    changed = {there: pins[name] for name, there in config.images if pins.get(name, there) != there}
    if not changed:
        return config
    fields = {name: _replaced(getattr(config, name), changed) for name in ("parameters", "job_variables", "pull_steps")}
    images = tuple((name, pins.get(name, there)) for name, there in config.images)
    return replace(config, **{**fields, "pull_steps": tuple(fields["pull_steps"])}, images=images)


def _replaced(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return texts.get(value, value)
    if isinstance(value, Mapping):
        return {key: _replaced(inner, texts) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(inner, texts) for inner in value]
    return value


def needs(configs: Sequence[DeploymentConfig]) -> tuple[ImageSpec, ...]:
    """Every image of ours that any of some deployments needs, once, with all tags and flows that it has anywhere."""
    found: dict[ImageSpec, ImageSpec] = {}
    for spec in (spec for config in configs for spec in images_of(config)):
        found[spec] = _both(found.get(spec, spec), spec)
    return tuple(found.values())


def _both(one: ImageSpec, other: ImageSpec) -> ImageSpec:
    """An image that two deployments speak of: it is pushed if either says so."""
    return replace(
        one,
        is_pushed=one.is_pushed or other.is_pushed,
        credentials=one.credentials or other.credentials,
        aliases=tuple(dict.fromkeys((*one.aliases, *other.aliases))),
        closures=tuple(dict.fromkeys((*one.closures, *other.closures))),
        concealed=tuple(dict.fromkeys((*one.concealed, *other.concealed))),
    )
