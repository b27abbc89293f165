"""`build` and `push` steps of a prefect.yaml: which of them make images that we build ourselves, and what they give.

`build_docker_image` and `push_docker_image` (prefect_docker.deployments.steps) take the same way as every image of
ours: built when what it is made of changes, and pinned. Any other step, and a build with arguments that we have no word
for, is run by Prefect, and only when something that depends on it is to be applied.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.model import DeployStep, ImageSpec
from orchestrator.placeholders import OUTPUTS, environment_value, names_in

BUILD_STEPS = (
    "prefect_docker.deployments.steps.build_docker_image",
    "prefect_docker.projects.steps.build_docker_image",
)
PUSH_STEPS = (
    "prefect_docker.deployments.steps.push_docker_image",
    "prefect_docker.projects.steps.push_docker_image",
)
WRITTEN_BY_PREFECT = "auto"  # the Dockerfile that Prefect would make up
TEMPLATE_STEP = "orchestrator.image"  # the build that a template, or a deployment without any step, stands for
IMAGE_OUTPUTS = ("image_name", "tag", "image", "image_id", "additional_tags")

# Arguments that mean nothing for an image which is built once for its content, or that say how Prefect builds it.
_MEANS_NOTHING = frozenset(
    {
        *("requires", "id", "ignore_cache", "persist_dockerfile", "dockerfile_output_path", "build_backend", "pull"),
        *("nocache", "rm", "forcerm", "quiet", "decode", "stream_progress_to", "labels", "gzip", "timeout", "load"),
    }
)
_UNDERSTOOD = frozenset(
    {
        *("image_name", "tag", "additional_tags", "dockerfile", "path", "buildargs", "build_args", "target"),
        *("platform", "platforms", "push"),
    }
)
_OF_A_PUSH = frozenset(
    {"image_name", "tag", "additional_tags", "credentials", "requires", "id", "ignore_cache", "build_backend"}
)
_BLOCK = "prefect.blocks."


def steps_of(
    build: Sequence[Mapping[str, Any]], push: Sequence[Mapping[str, Any]], folder: str, source: str
) -> tuple[DeployStep, ...]:
    """The steps of a deployment in their order.

    Args:
        build: its build steps, as the file has them.
        push: its push steps.
        folder: where they run, relative to the repository's root.
        source: file:line of the deployment.

    Returns:
        The steps that have something to do. A push of an image that we build is part of that image; one that only
        Prefect's own step can do leaves the build to Prefect, too.
    """
    steps: list[DeployStep] = []
    for step in _steps(build, folder):
        image = _image(step, source) if step.function in BUILD_STEPS else None
        steps.append(step if image is None or _waits_for(image, steps) else replace(step, image=image))
    pushes = list(_steps(push, folder))
    for step in pushes:
        pushed = _pushed(step, steps)
        if pushed is not None and (not _is_understood(step) or _waits_for_later(step, steps, pushed)):
            steps[pushed] = replace(steps[pushed], image=None)
    for step in pushes:
        pushed = _pushed(step, steps)
        if pushed is None:
            steps.append(step)
        else:
            steps[pushed] = _with_push(steps[pushed], step)
    return tuple(steps)


def _steps(written: Sequence[Mapping[str, Any]], folder: str) -> Iterator[DeployStep]:
    return (_step(function, inputs, folder) for each in written for function, inputs in each.items())


def implied_step(image: ImageSpec) -> DeployStep:
    """The step of a deployment that says of its image no more than that it needs one."""
    return DeployStep(function=TEMPLATE_STEP, image=image)


def _step(function: str, inputs: Any, folder: str) -> DeployStep:
    given = dict(inputs) if isinstance(inputs, Mapping) else {}
    return DeployStep(function=str(function), id=str(given.get("id") or ""), inputs=given, folder=folder)


def _image(step: DeployStep, source: str) -> ImageSpec | None:
    """What a build step builds; None where it says something that only Prefect's own step can do."""
    inputs = step.inputs
    name, dockerfile = inputs.get("image_name"), inputs.get("dockerfile", "Dockerfile")
    context = _inside(step.folder, inputs.get("path", ""))
    platforms = _platforms(inputs)
    known = set(inputs) <= _MEANS_NOTHING | _UNDERSTOOD
    if not (known and isinstance(name, str) and isinstance(dockerfile, str)) or context is None or len(platforms) > 1:
        return None
    start = step.folder if inputs.get("build_backend") == "buildx" else context  # docker's SDK looks in the context
    place = dockerfile if dockerfile == WRITTEN_BY_PREFECT else _inside(start, dockerfile)
    arguments = inputs.get("buildargs") or inputs.get("build_args") or {}
    if place is None or not isinstance(arguments, Mapping):
        return None
    return ImageSpec(
        repository=name,
        dockerfile=place,
        context=context,
        target=str(inputs.get("target") or ""),
        platform=platforms[0] if platforms else "",
        arguments=tuple(sorted((str(key), str(value)) for key, value in arguments.items() if value is not None)),
        is_pushed=inputs.get("push") is True,
        aliases=tuple(_tags(inputs)),
        source=source,
    )


def _waits_for(image: ImageSpec, earlier: Sequence[DeployStep]) -> bool:
    """Whether what an image is built from is known only when earlier steps have run. Its tags are no part of that."""
    texts = [image.repository, image.dockerfile, image.target, image.platform]
    texts += [value for _, value in image.arguments]
    names = [name for text in texts for _, name in names_in(text) if environment_value(name) is None]
    return any(output_of(name, earlier) for name in names)


def _platforms(inputs: Mapping[str, Any]) -> list[str]:
    written = inputs.get("platforms") or inputs.get("platform") or []
    return [written] if isinstance(written, str) else list(map(str, written))


def _tags(inputs: Mapping[str, Any]) -> Iterator[str]:
    """The tags that a step names. A placeholder for a list of them, as push steps have it, names none of its own."""
    if inputs.get("tag"):
        yield str(inputs["tag"])
    more = inputs.get("additional_tags")
    yield from map(str, more if isinstance(more, list | tuple) else ())


def _inside(start: str, path: Any) -> str | None:
    """A path relative to the repository's root; "" for the root itself, None for what is not below it."""
    if not isinstance(path, str) or "{{" in path or "://" in path or path.startswith("git@"):
        return None
    joined = posixpath.normpath(posixpath.join(start, path))
    if joined.startswith(("/", "../")) or joined == "..":
        return None
    return "" if joined == "." else joined


def _pushed(push: DeployStep, steps: Sequence[DeployStep]) -> int | None:
    """The index of the build whose image a step pushes, None where it is somebody else's, or no push."""
    if push.function not in PUSH_STEPS:
        return None
    name = str(push.inputs.get("image_name", ""))
    given = [output_of(inner, steps) for _, inner in names_in(name)]
    builds = [step for step, output in filter(None, given) if output in ("image_name", "image")]
    for index, step in reversed(list(enumerate(steps))):
        if step.image is not None and (name == step.image.repository or step in builds):
            return index
    return None


def _is_understood(push: DeployStep) -> bool:
    """Whether we can do what a push step says: with a user of a block, or of Docker's own configuration."""
    credentials = push.inputs.get("credentials")
    names = names_in(credentials) if isinstance(credentials, str) else ()
    is_block = len(names) == 1 and names[0][0] == credentials and names[0][1].startswith(_BLOCK)
    return set(push.inputs) <= _OF_A_PUSH and (not credentials or is_block)


def _waits_for_later(push: DeployStep, steps: Sequence[DeployStep], build: int) -> bool:
    """Whether a tag that a push names is known only when steps behind the build have run."""
    names = [name for tag in _own_tags(push, steps[build]) for _, name in names_in(tag)]
    return any(output_of(name, steps[build + 1 :]) for name in names if environment_value(name) is None)


def _with_push(step: DeployStep, push: DeployStep) -> DeployStep:
    assert step.image is not None
    aliases = dict.fromkeys((*step.image.aliases, *_own_tags(push, step)))
    credentials = push.inputs.get("credentials") or step.image.credentials
    return replace(step, image=replace(step.image, is_pushed=True, aliases=tuple(aliases), credentials=credentials))


def _own_tags(push: DeployStep, build: DeployStep) -> Iterable[str]:
    """The tags that a push names itself, and not as an output of its build."""
    outputs = {f"{build.id}.tag", "tag", f"{build.id}.additional_tags", "additional_tags"}
    return (tag for tag in _tags(push.inputs) if not {name for _, name in names_in(tag)} & outputs)


# ---------------------------------------------------------------------------------------------------------
# What steps give
# ---------------------------------------------------------------------------------------------------------


def output_of(name: str, steps: Sequence[DeployStep]) -> tuple[DeployStep, str] | None:
    """The step, and which output of it, that a placeholder's name means.

    Args:
        name: `build-image.image`, or `image` for the latest step that gives it.
        steps: of the deployment.

    Returns:
        None where no step can give it. A step that nobody knows may give anything.
    """
    first, _, rest = name.partition(".")
    if rest:
        named = (step for step in reversed(steps) if step.id == first and _may_give(step, rest.partition(".")[0]))
        return next(((step, rest) for step in named), None)
    giving = [step for step in reversed(steps) if not first.startswith("$") and _may_give(step, first)]
    builds = [step for step in giving if step.function not in PUSH_STEPS]  # a push gives only what was given to it
    return next(((step, first) for step in (*builds, *giving)), None)


def _may_give(step: DeployStep, output: str) -> bool:
    known = IMAGE_OUTPUTS if step.image is not None else OUTPUTS.get(step.function)
    return known is None or output in known
